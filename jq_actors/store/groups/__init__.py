"""Groups: their rows and locks, whose turn it is, and what stops, moves or repairs them."""
