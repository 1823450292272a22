"""What a fitted model is."""
