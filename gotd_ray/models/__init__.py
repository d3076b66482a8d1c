"""What one process does with a model: encode, train, generate, judge. Never Ray."""
