"""Natural group commit: items that arrive during a write are written together by the next one."""
