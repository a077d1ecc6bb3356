"""Lanes: who serves which, in what order, and what becomes of idle ones, without rows."""
