"""New jobs are admitted to their groups, and inserted."""
