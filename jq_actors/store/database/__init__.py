"""Database access: transactions, single statements, errors, and the differences between the two databases."""
