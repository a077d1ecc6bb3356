"""The tables come into being: migrations by Alembic, and the database made ready for this release."""
