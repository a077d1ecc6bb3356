"""An explicit-state model of the claim protocol. Start at `configurations`, or at docs/protocol.md."""
