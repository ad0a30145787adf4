"""The tick: one packet from a line to the hall every 20 ms, one packet back.

At every turn of its clock a line sends what it received for each of its calls since the last tick, and takes
the hall's newest answer for the next 20 ms. Both directions share one form over a unix SOCK_SEQPACKET socket,
so a packet is a message and needs no framing.

    tick   := magic u16 | seq u32 | count u8 | pad u8 | slot*
    slot   := call u32 | slot u8 | flags u8 | samples u16 | played u32 | pcm int16[samples]

All little-endian; PCM is mono at the line's own rate (8, 16 or 48 kHz), 20 ms or nothing (`samples` = 0).
`call` is a number the line gives each call it takes (never reused while it lives), so that a packet in
flight cannot speak into the slot's next call. `played` counts samples of the hall's sound that the line
really pulled while the call's direction included send; it only grows (modulo 2**32).

Hot path: packs and unpacks with `struct` and slices.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import partial
from typing import Final, NamedTuple

from gateway.errors import LineError

FRAME_S: Final = 0.02
MAGIC: Final = 0x7654
MAX_PACKET: Final = 64 * 1024
"""Bytes a receiver must offer: 8 calls of 48 kHz are 15.5 kB, 100 of 16 kHz 65 kB."""

SENDING: Final = 0x01
"""The call's media direction includes send: what the hall gives is heard."""
RECEIVING: Final = 0x02
"""The pcm is sound from the caller (clear: held, or nothing arrived and it is absent)."""
UNDERRUN: Final = 0x04
"""Since the last tick the line had nothing from the hall to play for this call and played zeros."""

TONES: Final = 0x08
"""No telephone-event was agreed: keys may come as sound."""

_HEAD: Final = struct.Struct("<HIBx")
_SLOT: Final = struct.Struct("<IBBHI")


class SlotAudio(NamedTuple):
    """One call's 20 ms in one direction."""

    call: int
    slot: int
    flags: int
    played: int
    pcm: bytes | memoryview
    """int16 little-endian, the line's rate; empty when there is nothing."""


class Tick(NamedTuple):
    """One packet."""

    seq: int
    """The line's counter; the hall's answer repeats the number it answers."""
    slots: list[SlotAudio]


Slot = SlotAudio | tuple[int, int, int, int, bytes | memoryview]
"""One call's 20 ms, with or without names, which cost as much as the rest of it."""
_audio: Final = partial(tuple.__new__, SlotAudio)
"""`SlotAudio` of a tuple, at half the price."""


def pack(seq: int, slots: Iterable[Slot]) -> bytes:
    """The bytes of one packet. `seq` wraps at 2**32."""
    parts: list[bytes | memoryview] = [b""]
    write = _SLOT.pack
    for call, slot, flags, played, pcm in slots:
        parts += write(call, slot, flags, len(pcm) >> 1, played & 0xFFFFFFFF), pcm
    parts[0] = _HEAD.pack(MAGIC, seq & 0xFFFFFFFF, len(parts) >> 1)
    return b"".join(parts)


def unpack(packet: bytes | memoryview) -> Tick:
    """The packet's slots; their `pcm` are views into it.

    Raises `LineError` when it is cut short, has another magic, or has bytes left over.
    """
    view = memoryview(packet)
    try:
        magic, seq, count = _HEAD.unpack_from(view, 0)
        if magic != MAGIC:
            raise LineError(f"not a tick: it begins with {magic:#06x}, not {MAGIC:#06x}")
        at = _HEAD.size
        slots: list[SlotAudio] = []
        read, head, whole = _SLOT.unpack_from, _SLOT.size, len(view)
        for _ in range(count):
            call, slot, flags, samples, played = read(view, at)
            at += head
            end = at + 2 * samples
            if end > whole:
                raise LineError(f"a tick of {whole} bytes ends inside slot {slot}")
            slots.append(_audio((call, slot, flags, played, view[at:end])))
            at = end
    except struct.error as error:
        raise LineError(f"a tick of {len(view)} bytes is cut short: {error}") from None
    if at != len(view):
        raise LineError(f"a tick has {len(view) - at} bytes left over")
    return Tick(seq, slots)
