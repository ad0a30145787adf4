"""Calls under way, refused and ended."""
