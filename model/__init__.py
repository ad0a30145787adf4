"""The engine: what speaks and listens, behind one contract."""

__version__ = "0.2.0"
"""The one place that says it, for gateway and engine: packages are built with it, processes tell it to each
other. It stands here because the engine does not know the gateway."""
