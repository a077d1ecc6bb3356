"""What jobs, groups and outcomes are, and the rules that they follow: plain data and pure functions, no I/O."""
