"""An explicit-state model of groups: lanes, lobby, tokens and the order guard. Start at `configurations`."""
