"""What runs the consumer: for a look, for development, in production."""
