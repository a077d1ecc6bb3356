"""The configuration: its settings with their defaults, and how it is found, read and checked."""
