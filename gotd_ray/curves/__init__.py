"""What the next documents buy: laws of the loss against the number of documents, and what follows from them."""
