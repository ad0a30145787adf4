"""The network that hears speech, and its licence."""
