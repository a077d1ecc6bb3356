"""The client: aio-pika with our own frames on the hot path, behind `link.Link` and `frames.Sink`."""
