"""What is heard of scripted packets. No real time passes, and no socket is opened."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rtp.payloads import g711
from gateway.rtp.payloads.packet import write_rtp
from tests.gateway.rtp.rtp_script import SSRC, STEP, TICK_S, Listening, agreed, event, level, on_time, sound


def test_a_clean_stream_is_heard_whole_and_in_order() -> None:
    heard = Listening().run(on_time(map(sound, range(100))), until=2.0).heard()
    assert len(heard) >= 96  # the delay of the beginning is shed when nothing needs it
    assert heard == [level(n) for n in range(100) if level(n) in heard]


@pytest.mark.parametrize("kind", [0, 8])
def test_the_law_is_what_each_packet_says(kind: int) -> None:
    """The payload type may change within a stream (RFC 3550 §5.1)."""
    packets = [sound(n) for n in range(20)] + [sound(n, kind=kind) for n in range(20, 60)]
    heard = Listening().run(on_time(packets), until=1.2).heard()
    expected = [
        int(g711.decode("PCMA", g711.encode("PCMA", np.full(1, level(n), np.int16)))[0])
        for n in range(20, 55)
    ]
    missing = set(expected if kind == 8 else [level(n) for n in range(20, 55)]) - set(heard)
    assert len(missing) <= 1  # the delay of the beginning is shed


def test_a_lost_packet_is_concealed_and_the_rest_is_in_time() -> None:
    packets = on_time(map(sound, range(100)))
    del packets[50]
    line = Listening().run(packets, until=2.0)
    assert all(frame is not None for frame in line.frames[5:95])
    assert line.receiver.lost == 1
    assert level(51) in line.heard() or level(52) in line.heard()  # the first after it is blended


def test_what_is_concealed_fades_and_becomes_silence() -> None:
    line = Listening().run(on_time(map(sound, range(50))), until=2.0)
    after = line.frames[52:]
    peaks = [0 if frame is None else int(np.abs(frame).max()) for frame in after]
    assert peaks[0] > 0
    assert peaks == sorted(peaks, reverse=True)
    assert after[-1] is None


@pytest.mark.parametrize("samples", [80, 240, 320, 480, 1600])
def test_packets_of_any_length_become_frames(samples: int) -> None:
    rise = (np.arange(samples * 30) // STEP % 100).astype(np.int16)
    codes = bytes((rise + 20).astype(np.uint8))
    arrivals = [
        (
            n * samples / 8000 + 0.001,
            write_rtp(0, n, n * samples, SSRC, codes[n * samples : (n + 1) * samples]),
        )
        for n in range(30)
    ]
    whole = samples * 30 / 8000
    line = Listening().run(arrivals, until=whole)
    frames = [frame for frame in line.frames if frame is not None]
    assert all(len(frame) == STEP for frame in frames)
    assert len(frames) >= (whole - samples / 8000) / TICK_S - 8


def test_a_new_source_is_heard_at_once() -> None:
    packets = [sound(n) for n in range(50)]
    packets += [sound(n, ssrc=77, first=40_000, first_timestamp=99) for n in range(50, 100)]
    line = Listening().run(on_time(packets), until=2.0)
    assert len({level(n) for n in range(55, 95)} - set(line.heard())) <= 1
    assert line.receiver.received == 100
    assert line.receiver.lost == 0


@pytest.mark.parametrize("first", [65_500, 65_535])
def test_numbers_and_timestamps_wrap(first: int) -> None:
    packets = [sound(n, first=first, first_timestamp=2**32 - 50 * STEP) for n in range(100)]
    line = Listening().run(on_time(packets), until=2.0)
    assert len(line.heard()) >= 96
    assert line.receiver.lost == 0


def test_a_pause_with_comfort_noise_sounds_like_the_room() -> None:
    packets = on_time(map(sound, range(50)))
    packets.append((1.001, write_rtp(13, 1050, 50 * STEP, SSRC, bytes((50, 1, 2)))))
    line = Listening().run(packets, until=2.0)
    pause = [frame for frame in line.frames[60:] if frame is not None]
    assert len(pause) == len(line.frames[60:])
    loudness = float(np.sqrt(np.mean(np.concatenate(pause).astype(np.float64) ** 2)))
    assert 20 * np.log10(loudness / 32768) == pytest.approx(-50, abs=0.5)
    assert line.receiver.jitter.stats.concealed == 0


def test_sound_after_comfort_noise_is_not_taken_for_loss() -> None:
    packets = on_time(map(sound, range(50)))
    packets.append((1.001, write_rtp(13, 1050, 50 * STEP, SSRC, bytes((60,)))))
    packets += [(3.0 + n * TICK_S, sound(n, first=951, first_timestamp=0)) for n in range(100, 150)]
    # numbers go on, and the time has jumped: 2 s of pause between
    line = Listening().run(packets, until=4.0)
    assert {level(n) for n in range(100, 145)} <= set(line.heard())
    assert line.receiver.lost == 0


def test_a_key_is_told_once_and_is_no_loss() -> None:
    packets = [sound(n) for n in range(30)]
    began = 30 * STEP
    packets += [event(1030 + n, began, 5, (n + 1) * STEP) for n in range(5)]
    packets += [event(1035 + n, began, 5, 6 * STEP, end=True) for n in range(3)]
    packets += [sound(n) for n in range(38, 80)]
    line = Listening().run(on_time(packets), until=1.6)
    assert line.keys == ["5"]
    assert line.receiver.lost == 0
    assert line.receiver.jitter.stats.lost == 0
    during = [frame for frame in line.frames[33:37] if frame is not None]
    assert not during
    assert {level(n) for n in range(40, 75)} <= set(line.heard())


def test_what_was_not_agreed_on_is_counted_and_not_heard() -> None:
    packets = [write_rtp(96 if n % 2 else 0, n, n * STEP, SSRC, sound(n)[12:]) for n in range(60)]
    line = Listening().run(on_time(packets), until=1.2)
    assert line.receiver.unknown == 30
    assert line.receiver.lost == 0


def test_while_held_nothing_is_heard_and_nothing_old_after() -> None:
    line = Listening()
    line.run(on_time(map(sound, range(20))), until=0.4)
    line.receiver.agree(agreed(receiving=False))
    line.run([(0.4 + n * TICK_S, sound(20 + n)) for n in range(20)], until=0.8)
    assert all(frame is None for frame in line.frames[21:])
    assert len(line.frames) > 35
    line.receiver.agree(agreed())
    before = len(line.frames)
    line.run([(0.801 + n * TICK_S, sound(40 + n)) for n in range(20)], until=1.2)
    late = [frame for frame in line.frames[before:] if frame is not None]
    assert late
    assert {int(frame[0]) for frame in late} <= {level(n) for n in range(40, 60)} | {0}


def test_what_was_agreed_on_before_is_silence_after() -> None:
    line = Listening(agreed(takes={97: "PCMU"}))
    line.run(on_time([sound(n, kind=97) for n in range(20)]), until=0.39)
    line.receiver.agree(agreed(takes={0: "PCMU"}))
    line.run([(0.4 + n * TICK_S, sound(20 + n, kind=97)) for n in range(5)], until=0.8)
    assert line.receiver.unknown == 5


def test_rubbish_is_not_heard() -> None:
    rubbish = [b"", b"\x80", bytes(12), b"\x40" + bytes(200), bytes(11), b"\xff" * 40, sound(0)[:12]]
    line = Listening().run(on_time(rubbish), until=0.4)
    assert line.frames == [None] * len(line.frames)
    assert line.receiver.received == 0


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_the_network_does_frames_are_in_order_and_none_twice(data: st.DataObject) -> None:
    """Loss, duplicates, reorder, jitter, a wrap of the numbers, a start anywhere."""
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    first = data.draw(st.sampled_from([0, 7, 65_480, 65_535]))
    start = data.draw(st.sampled_from([0, 2**32 - 3000]))
    loss, twice, spread = (data.draw(st.floats(0, most)) for most in (0.3, 0.3, 0.08))
    count = 95  # each level once
    arrivals = []
    for n in range(count):
        if chance.random() < loss:
            continue
        packet = sound(n, first=first, first_timestamp=start)
        at = n * TICK_S + chance.uniform(0, spread)
        arrivals.append((at, packet))
        if chance.random() < twice:
            arrivals.append((at + chance.uniform(0, 0.2), packet))
    line = Listening().run(arrivals, until=count * TICK_S + 0.5)
    places = {level(n): n for n in range(count)}
    order = [places[one] for one in line.heard() if one in places]
    # a concealed frame repeats the level before it; real ones never go back
    assert order == sorted(order)
    assert all(frame is None or len(frame) == STEP for frame in line.frames)
    assert line.receiver.lost <= count
