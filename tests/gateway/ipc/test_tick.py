"""The packet that lines and hall share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LineError
from gateway.ipc.tick import MAX_PACKET, SlotAudio, pack, unpack

U32 = st.integers(0, 2**32 - 1)
PCM = st.integers(0, 960).flatmap(lambda samples: st.binary(min_size=2 * samples, max_size=2 * samples))
SLOTS = st.lists(st.builds(SlotAudio, U32, st.integers(0, 255), st.integers(0, 255), U32, PCM), max_size=8)


@given(U32, SLOTS)
def test_what_is_packed_comes_out_again(seq: int, slots: list[SlotAudio]) -> None:
    packet = pack(seq, slots)
    again = unpack(packet)
    assert again.seq == seq
    assert [slot._replace(pcm=bytes(slot.pcm)) for slot in again.slots] == slots
    assert len(packet) <= MAX_PACKET


@given(U32, SLOTS, st.data())
def test_a_packet_that_is_cut_short_is_refused(seq: int, slots: list[SlotAudio], data: st.DataObject) -> None:
    packet = pack(seq, slots)
    cut = data.draw(st.integers(0, len(packet) - 1))
    with pytest.raises(LineError):
        unpack(packet[:cut])


@given(SLOTS, st.binary(min_size=1, max_size=64))
def test_bytes_left_over_are_refused(slots: list[SlotAudio], rest: bytes) -> None:
    with pytest.raises(LineError, match="left over"):
        unpack(pack(1, slots) + rest)


@given(st.binary(max_size=256))
def test_any_bytes_are_a_tick_or_a_clear_error(packet: bytes) -> None:
    try:
        again = unpack(packet)
    except LineError:
        return
    assert pack(again.seq, again.slots)[7:8] + packet[8:] == packet[7:]


@given(st.integers(2**32, 2**40), st.integers(2**32, 2**40))
def test_counters_wrap(seq: int, played: int) -> None:
    again = unpack(pack(seq, [SlotAudio(1, 0, 0, played, b"")]))
    assert again.seq == seq % 2**32
    assert again.slots[0].played == played % 2**32


def test_another_magic_is_named() -> None:
    with pytest.raises(LineError, match="0x4242"):
        unpack(b"BB" + pack(1, [])[2:])


def test_sound_is_not_copied() -> None:
    packet = pack(1, [SlotAudio(1, 0, 0, 0, b"\x01\x00" * 160)])
    pcm = unpack(packet).slots[0].pcm
    assert isinstance(pcm, memoryview)
    assert pcm.obj is packet
