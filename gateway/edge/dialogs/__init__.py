"""What is remembered of a request, and of a call."""
