"""How commands travel: one port, two adapters (`rabbitmq`, `embedded`), one conformance suite for both."""
