"""Model files that this program reads and does not carry."""
