"""Where jobs are kept: one port, one SQL adapter for PostgreSQL and SQLite, and the relay that reads it."""
