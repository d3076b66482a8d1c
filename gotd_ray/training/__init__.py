"""The training of a language model: what it learns from what, and what each worker does. No Ray."""
