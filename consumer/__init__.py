"""landlord-consumer: one Docker container for each tenant, driven by events from RabbitMQ."""
