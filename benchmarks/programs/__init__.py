"""What runs inside a contestant's own environment: standard library, and that contestant."""
