"""Composes one process: the broker that Dramatiq sees, the runtime behind it, and how commands are sent."""
