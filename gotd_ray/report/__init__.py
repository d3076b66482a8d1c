"""The report: numbers and pictures of a finished run, as one HTML file that opens offline. Never Ray, no storage."""
