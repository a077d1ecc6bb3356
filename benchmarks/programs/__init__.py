"""Programs that run in a contestant's own environment: they import the standard library and that contestant only."""
