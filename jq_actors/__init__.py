"""The job queue for Python teams on RabbitMQ: Dramatiq actors, an asyncio runtime, jobs that are never lost."""
