"""What the next documents buy: laws of loss against the number of documents, and what follows from them. numpy, scipy."""
