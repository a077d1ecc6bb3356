"""Explicit-state models: of the claim protocol (`configurations`), of groups (`lanes`). See docs/protocol.md."""
