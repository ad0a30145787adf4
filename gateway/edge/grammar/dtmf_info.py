"""Keys that a caller sends as INFO, in every form that phones use."""

from __future__ import annotations

import re
from typing import Final

RELAY: Final = "application/dtmf-relay"
EVENT: Final = "audio/telephone-event"
DTMF_TYPES: Final = (RELAY, "application/dtmf", EVENT)
KEYS: Final = "0123456789*#ABCD"
"""By their codes in RFC 4733 §3.2, which some phones send as a number."""
FLASH: Final = frozenset({"16", "!", "hf", "flash", "hookflash"})
"""A hook flash: understood, and no key."""

_FIELD: Final = re.compile(r"^\s*(?:signal|d)\s*=\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_LONGEST: Final = 1_000


def media_type(content_type: str | None) -> str:
    """A Content-Type without its parameters, in small letters; empty when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def pressed(kind: str, body: bytes) -> str:
    """The key that an INFO of one of `DTMF_TYPES` says; empty for a hook flash.

    It is said as `Signal=5`, as `d=5`, alone, or (`EVENT` only) as the four bytes of an RFC 4733 event.
    Raises `ValueError` when the body says no key, or more than one.
    """
    if kind == EVENT and len(body) == 4 and body[0] <= len(KEYS):
        return KEYS[body[0]] if body[0] < len(KEYS) else ""
    text = body[:_LONGEST].decode("utf-8", errors="replace")
    fields: list[str] = _FIELD.findall(text)
    if len(fields) > 1:
        raise ValueError("an INFO says one key at a time")
    said = fields[0] if fields else text.strip()
    if said.lower() in FLASH:
        return ""
    if said.upper() in tuple(KEYS):
        return said.upper()
    if re.fullmatch(r"1[0-5]", said):
        return KEYS[int(said)]
    raise ValueError("its body says no key: Signal= and one of 0-9, *, #, A-D")
