"""A caller's Opus by scripted packets: whole, with losses, and what we send. No real time passes."""

from __future__ import annotations

import numpy as np
import pytest
from pesq import pesq

from gateway.line.opus import OpusEncoder
from gateway.rtp.described_audio import OpusWishes
from gateway.rtp.media.rtp_sender import RtpSender
from gateway.rtp.payloads.opus16 import Opus16Decoder
from gateway.rtp.payloads.packet import RtpPacket, read_rtp, write_rtp
from tests.gateway.rtp.rtp_script import SSRC, TICK_S, Listening, agreed, event, on_time
from tests.needs import need_sounds
from watermark import sound

RATE_HZ = 16_000
FRAME = RATE_HZ // 50
OPUS = {
    "codec": "OPUS", "sent_as": 111, "takes": {111: "OPUS"}, "event": 102, "takes_events": frozenset({102}),
    "event_hz": 48_000, "opus": OpusWishes(),
}  # fmt: skip


def speech(seconds: float = 8.0) -> np.ndarray:
    """A person's, int16 at 16 kHz; above 4 kHz there is nothing in it."""
    import soxr

    said = sound.read(need_sounds() / "vm-msginstruct.wav")
    wide = soxr.resample(said.channels[0], said.rate_hz, RATE_HZ)[: round(seconds * RATE_HZ)]
    return (wide * 32_767).astype("<i2")


def packets(said: np.ndarray, encoder: OpusEncoder) -> list[bytes]:
    count = len(said) // FRAME
    codes = [encoder.encode(said[n * FRAME : (n + 1) * FRAME].tobytes()) for n in range(count)]
    return [write_rtp(111, 1_000 + n, 960 * n, SSRC, code) for n, code in enumerate(codes)]


def heard(arrivals: list[tuple[float, bytes]], seconds: float) -> tuple[np.ndarray, Listening]:
    line = Listening(agreed(**OPUS)).run(arrivals, until=seconds + 0.1)
    nothing = np.zeros(FRAME, np.int16)
    return np.concatenate([nothing if frame is None else frame for frame in line.frames]), line


def score(said: np.ndarray, came: np.ndarray) -> float:
    """PESQ-WB, wherever the sound begins."""
    part = said[RATE_HZ : 2 * RATE_HZ].astype(np.float64)
    at = int(np.argmax(np.correlate(came[: 3 * RATE_HZ].astype(np.float64), part, "valid"))) - RATE_HZ
    aligned = came[max(0, at) :]
    length = min(len(said), len(aligned))
    return float(pesq(RATE_HZ, said[:length] / 32_768, aligned[:length] / 32_768, "wb"))


def test_speech_comes_through_at_the_line_s_rate_with_its_jitter_in_time() -> None:
    said = speech()
    came, line = heard(on_time(packets(said, OpusEncoder(40_000, rate_hz=RATE_HZ))), 8.0)
    assert score(said, came) > 3.4
    assert line.receiver.reception is not None
    assert line.receiver.reception.jitter < 96, "2 ms of a clock of 48 kHz"
    assert line.receiver.lost == 0


@pytest.mark.parametrize(("copies", "least"), [(True, 2.8), (False, 1.4)])
def test_one_packet_in_twelve_is_lost_and_speech_stays_speech(copies: bool, least: float) -> None:
    said = speech()
    encoder = OpusEncoder(32_000, loss_percent=10 if copies else 0, rate_hz=RATE_HZ)
    arrivals = [at for n, at in enumerate(on_time(packets(said, encoder))) if n % 12 != 7]
    came, line = heard(arrivals, 8.0)
    assert line.receiver.lost == pytest.approx(8 * 50 / 12, abs=2)
    assert score(said, came) > least
    levels = np.abs(came[: 7 * RATE_HZ].reshape(-1, FRAME)).max(axis=1)
    assert np.count_nonzero(levels[5:] == 0) < 10, "no holes where packets are missing"


def test_packets_of_any_length_and_none_at_all_are_taken() -> None:
    """10 to 60 ms (RFC 7587 §4.2); a sender that saves silence (DTX) sends nothing in it."""
    long = b"\xfb\x03" + b"".join(OpusEncoder(rate_hz=RATE_HZ).encode(bytes(2 * FRAME))[1:] for _ in range(3))
    arrivals = [(n * 0.06 + 0.001, write_rtp(111, n, 2_880 * n, SSRC, long)) for n in range(20)]
    came, line = heard(arrivals, 1.2)
    assert len(came) == len(line.frames) * FRAME
    rest = line.run([], until=3.0).frames[-20:]
    assert all(frame is None for frame in rest)


def test_rubbish_in_the_place_of_opus_breaks_nothing() -> None:
    chance = np.random.default_rng(3)
    arrivals = [
        (n * TICK_S + 0.001, write_rtp(111, n, 960 * n, SSRC, chance.bytes(int(chance.integers(1, 300)))))
        for n in range(200)
    ]
    _, line = heard(arrivals, 4.0)
    assert {frame.shape for frame in line.frames if frame is not None} == {(FRAME,)}


def test_a_key_between_the_sound_is_told_once() -> None:
    said = packets(speech(1.0), OpusEncoder(rate_hz=RATE_HZ))
    keys = [event(1_050 + n, 48_000, 7, 960 * n, end=n > 3, kind=102) for n in range(1, 5)]
    _, line = heard([*on_time(said), *((1.0 + n * TICK_S, key) for n, key in enumerate(keys))], 1.5)
    assert line.keys == ["7"]


def test_ours_has_a_packet_each_tick_at_the_clock_of_48_khz() -> None:
    came: list[RtpPacket] = []
    encoder = OpusEncoder(rate_hz=RATE_HZ)

    def take(data: bytes) -> None:
        packet = read_rtp(data)
        assert packet is not None
        came.append(packet)

    sender = RtpSender(agreed(**OPUS), take, lambda: encoder.encode(bytes(2 * FRAME)))
    for tick in range(10, 30):
        sender.take(None if tick % 3 else encoder.encode(bytes(2 * FRAME)))
        sender.owe(range(tick, tick + 1))
    assert [packet.timestamp - came[0].timestamp for packet in came] == [960 * n for n in range(20)]
    assert {packet.payload_type for packet in came} == {111}
    decoder = Opus16Decoder()
    assert all(len(decoder.decode(packet.payload[1:])) == FRAME for packet in came)
    came.clear()
    sender.keys.dial("5")
    for tick in range(30, 45):
        sender.take(None)
        sender.owe(range(tick, tick + 1))
    lasted = [int.from_bytes(packet.payload[3:5], "big") for packet in came if packet.payload_type == 102]
    assert lasted[:3] == [960, 1_920, 2_880], "RFC 4733 §2.3.5: in units of its own clock"
