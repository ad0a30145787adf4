"""The house's ears: one process that hears words for everybody, and what its askers need."""

from typing import Final

SOCKET_VARIABLE: Final = "VOICEGATE_EARS"
"""The environment variable that names the socket of the house's ears."""
