"""The transport of ``embedded://``: queues, lanes and delays in the memory of one process."""
