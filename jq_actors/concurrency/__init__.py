"""Event loops in threads, blocking work beside them, background tasks, and waking a sleeper."""
