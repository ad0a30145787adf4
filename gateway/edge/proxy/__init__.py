"""What becomes of a message: callers on one side, lines on the other."""
