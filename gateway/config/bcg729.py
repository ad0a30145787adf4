"""G.729's library, where this machine has it (Debian's libbcg729-0): the package brings none of its own.

What a telephone's line and the edge offer depends on it, so both ask here.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

PACKAGE: Final = "libbcg729-0"
_NAMES: Final = ("libbcg729.so.0", "libbcg729.so")


@cache
def library() -> ctypes.CDLL | None:
    """bcg729 with its types; None where it is not installed, or older than 1.0.2, which says less."""
    for name in _NAMES:
        try:
            found = ctypes.CDLL(name)
            getattr(found, "bcg729GetRFC3389Payload")  # noqa: B009  # of the versions whose calls these are
        except (OSError, AttributeError):
            continue
        context, octets = ctypes.c_void_p, ctypes.c_char_p
        found.initBcg729EncoderChannel.restype = found.initBcg729DecoderChannel.restype = context
        found.initBcg729EncoderChannel.argtypes = [ctypes.c_uint8]
        found.initBcg729DecoderChannel.argtypes = []
        found.bcg729Encoder.restype = found.bcg729Decoder.restype = None
        found.bcg729Encoder.argtypes = [context, octets, context, ctypes.POINTER(ctypes.c_uint8)]
        flag = ctypes.c_uint8
        found.bcg729Decoder.argtypes = [context, octets, flag, flag, flag, flag, context]
        for close in (found.closeBcg729EncoderChannel, found.closeBcg729DecoderChannel):
            close.restype, close.argtypes = None, [context]
        return found
    return None
