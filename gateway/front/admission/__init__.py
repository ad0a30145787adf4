"""What becomes of a new call."""
