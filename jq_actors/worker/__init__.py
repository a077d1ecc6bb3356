"""Runs jobs in a worker process: it takes deliveries, claims them, calls their actors and settles the outcomes."""
