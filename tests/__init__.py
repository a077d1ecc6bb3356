"""The tests. A package, so that `tests.support` cannot be shadowed by somebody else's `tests`."""
