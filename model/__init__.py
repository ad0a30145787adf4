"""The engine: what speaks and listens, behind one contract."""

__version__ = "0.2.0"
"""What an engine says to the front of its own host, which takes no other version: `gateway.__version__`, said
again because nothing here knows the gateway. tests/model/test_reference.py compares the two."""
