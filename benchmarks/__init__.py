"""Peers and us, side by side in one run. Start reading at `__main__.py`; results: docs/benchmarks.md."""
