"""Which numbers of a caller's words may not be kept. Pure: text in, text out."""
