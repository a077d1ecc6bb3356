"""An explicit-state model of groups without rows: lanes, lobby and tokens. Start at `configurations`."""
