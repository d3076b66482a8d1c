"""Choose, out of an open-web corpus, the documents that best warm up a language model for a task (GOT-D), on Ray."""

__version__ = "0.1.0"
