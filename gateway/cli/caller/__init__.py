"""Calls that we place: the test phone, by script."""
