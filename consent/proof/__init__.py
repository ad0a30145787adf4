"""Proof for others: one voice's bundle, one call's chain of evidence."""
