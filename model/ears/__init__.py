"""The house's ears: one process that hears words for everybody, and what its askers need."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SOCKET_VARIABLE: Final = "VOICEGATE_EARS"
"""The environment variable that names the socket of the house's ears."""
ONE_THREAD: Final[Mapping[str, str]] = MappingProxyType({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
"""The environment of processes whose numpy and onnxruntime have small sums to do: more threads would spin
after each of them, and make what the ears hear a sixth dearer."""
