"""The gateway: telephones on one side, an engine on the other, consent and mark between."""

__version__ = "0.2.0"
"""The one place that says it: packages are built with it, and processes tell it to each other."""
