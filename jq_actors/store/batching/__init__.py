"""Natural group commit: what waits while a write is under way is written together with the next one."""
