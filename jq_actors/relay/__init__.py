"""Brings stored jobs to the broker, recovers the jobs of lost workers, and deletes rows past their retention."""
