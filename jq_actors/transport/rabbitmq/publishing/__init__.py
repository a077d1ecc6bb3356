"""Publishing: what is sent, by which route, within which window, and what became of it."""
