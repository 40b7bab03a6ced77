"""CloudEvents 1.0: our own codec for HTTP (binary, structured, batch) and Kafka (binary, structured)."""
