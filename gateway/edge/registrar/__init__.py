"""Telephones that register, and where they are."""
