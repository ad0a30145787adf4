"""Calls that there were: listed, shown, traced."""
