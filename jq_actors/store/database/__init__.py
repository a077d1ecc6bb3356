"""The connection to the database: transactions, single statements, errors, and what two databases do differently."""
