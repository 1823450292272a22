"""What margins need of a model: adapters."""
