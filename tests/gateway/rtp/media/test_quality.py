"""How calls sound: real packets between two passes, in a time of their own, and some get lost."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest

from gateway.hall.parts.call_quality import CallQuality
from gateway.ipc.hall_messages import CallRated
from gateway.phone.rough_line import PacketFates, RoughLine
from gateway.rtp.described_audio import CodecName
from gateway.rtp.dialogs import callees
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.e_model import IMPAIRMENTS, mos, rating
from gateway.rtp.media.media_pass import MediaPass
from gateway.rtp.media.socket_pair import Arrival
from tests.gateway.line.line_harness import tone
from tests.gateway.rtp.media.test_media_pass import End, joined, talk
from tests.gateway.rtp.rtp_exchange import RtpExchange

SECONDS = 20
LOST_PERCENT = (0, 2, 5, 10)


class Clockwork(Arrival):
    """Each turn is a tick later; what comes in a turn comes at its time."""

    __slots__ = ("set_s",)

    def __init__(self) -> None:
        self.set_s = 0.0
        """by how much somebody has set the wall clock"""
        super().__init__()

    def turn(self) -> None:
        self.now += 0.02
        self.wall_s = 1_790_000_000 + self.set_s + self.now

    def of(self, seconds: int, nanoseconds: int) -> float:
        return self.now


class Timed(End):
    """A pass whose time passes by turns."""

    arrival: Clockwork

    def __post_init__(self) -> None:
        self.arrival = Clockwork()
        self.media_pass = MediaPass(self.rate_hz, 8, self.arrival)
        self.ticks = 0


@pytest.fixture
def ends() -> Iterator[tuple[Timed, Timed]]:
    near, far = Timed(), Timed()
    yield near, far
    near.close()
    far.close()


def lose(media: CallMedia, percent: float, seed: int) -> None:
    """Some of the packets that a call sends never leave."""
    fates, send = PacketFates(RoughLine(loss_percent=percent, seed=seed)), media.sender._send

    def roughly(packet: bytes) -> None:
        if not fates.next().lost:
            send(packet)

    media.sender._send = roughly


def converse(near: Timed, far: Timed, seconds: float = SECONDS) -> None:
    """Both speak, and report as RTCP has it."""
    for _ in range(round(seconds * 5)):
        talk(near, far, 10, {0: 500.0})
        near.media_pass.report(near.ticks)
        far.media_pass.report(far.ticks)


def rated(media: CallMedia) -> CallRated:
    """The call, as its hall rates it at its end."""
    quality = media.quality("c", last=True)
    assert quality is not None
    found = CallQuality().take(quality, 0.0).rated
    assert found is not None
    return found


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
def test_the_score_falls_with_what_is_lost_both_ways_as_g107_has_it(codec: CodecName) -> None:
    scores: list[tuple[float, float]] = []
    for percent in LOST_PERCENT:
        rate_hz = 16_000 if codec == "G722" else 8_000
        near, far = Timed(rate_hz), Timed(rate_hz)
        joined(near, far, 0, codec)
        ours, theirs = near.media_pass.calls[0], far.media_pass.calls[0]
        lose(theirs, percent, seed=1)
        lose(ours, percent, seed=2)
        converse(near, far)
        found = rated(ours)
        assert found.from_caller is not None
        assert found.to_caller is not None
        # of the way to the caller we know what its last report said, which comes when chance has it
        for way, within in ((found.from_caller, 0.004), (found.to_caller, 0.012)):
            assert way.loss == pytest.approx(percent / 100, abs=within), "each way loses its own"
            assert way.mos is not None
            formula = rating(IMPAIRMENTS[codec], percent / 100, 0.05)
            assert way.mos == pytest.approx(mos(formula), abs=0.1)
        scores.append((found.from_caller.mos or 0.0, found.to_caller.mos or 0.0))
        near.close()
        far.close()
    for before, after in pairwise(scores):
        assert before[0] - after[0] > 0.1
        assert before[1] - after[1] > 0.1


def test_what_we_count_and_what_the_other_side_says_of_it_agree(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    ours, theirs = near.media_pass.calls[0], far.media_pass.calls[0]
    lose(ours, 8, seed=3)
    converse(near, far)
    near_says, far_says = ours.quality("c", last=True), theirs.quality("c", last=True)
    assert near_says is not None
    assert near_says.far is not None
    assert far_says is not None
    assert (near_says.lost, far_says.far and far_says.far.lost) == (0, 0)
    assert far_says.lost == pytest.approx(0.08 * SECONDS * 50, abs=2)
    assert near_says.far.sent <= SECONDS * 50
    assert near_says.far.lost <= far_says.lost, "it was told some seconds before the end"
    assert near_says.far.lost / near_says.far.sent == pytest.approx(0.08, abs=0.01)


def test_the_round_trip_and_the_wait_in_the_buffer_are_those_of_the_clock(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    converse(near, far)
    told = near.media_pass.calls[0].quality("c", last=False)
    assert told is not None
    assert told.round_trip_ms == pytest.approx(40, abs=1), "a turn there, and one back"
    assert told.buffer_ms is not None
    assert 0 <= told.buffer_ms <= 60
    assert told.jitter_ms == pytest.approx(0, abs=0.1)
    assert told.far is not None
    assert told.far.jitter_ms == pytest.approx(0, abs=0.2)
    assert told.last is False


def test_packets_that_come_twice_are_no_loss_and_hide_none(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    theirs = far.media_pass.calls[0]
    send = theirs.sender._send

    def twice(packet: bytes) -> None:
        send(packet)
        send(packet)

    theirs.sender._send = twice
    lose(theirs, 5, seed=1)
    converse(near, far)
    told = near.media_pass.calls[0].quality("c", last=True)
    assert told is not None
    assert told.received + told.lost == pytest.approx(SECONDS * 50, abs=3)
    assert told.lost == pytest.approx(0.05 * SECONDS * 50, abs=2)


def test_a_wall_clock_that_is_set_moves_no_round_trip(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    media = near.media_pass.calls[0]
    for step_s in (3600.0, -7200.0):
        before = media.rtcp.reports
        while media.rtcp.reports < before + 2:
            near.arrival.set_s += step_s / 2
            converse(near, far, 1)
            assert media.rtcp.round_trip_s is None or media.rtcp.round_trip_s == pytest.approx(
                0.04, abs=0.001
            )
    assert media.rtcp.round_trip_s is not None


def test_of_a_call_in_which_nothing_came_nothing_is_said(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    assert near.media_pass.calls[0].quality("c", last=True) is None


def test_who_is_not_heard_but_reports_is_rated_by_that(ends: tuple[Timed, Timed]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    lose(far.media_pass.calls[0], 50, seed=1)
    far.media_pass.calls[0].sender._send = lambda _: None
    converse(near, far)
    found = rated(near.media_pass.calls[0])
    assert found.from_caller is None
    assert found.to_caller is not None
    assert found.to_caller.loss == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_line_tells_its_hall_while_a_call_goes_on_and_at_its_end(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callees, "QUALITY_EVERY_S", 1)
    hall = exchange.hall
    phone, started = await exchange.call()
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_ticks(started.call, 20)
    phone.sequence += 7  # packets that never leave
    told = await hall.hears_quality(phone.call_id, lambda one: one.lost)
    assert told.lost >= 7
    assert (told.codec, told.far, told.round_trip_ms, told.last) == ("PCMU", None, None, False)
    media = exchange.rtp_lines["n0"]._callees.by_call[phone.call_id].media
    assert media is not None
    block = struct.pack(">IIIIII", media.sender.ssrc, 26 << 24 | 9, 0, 80, 0, 0)
    phone.send_rtcp(struct.pack(">BBHI", 0x81, 201, 7, phone.ssrc) + block)
    told = await hall.hears_quality(phone.call_id, lambda one: one.far)
    assert told.far is not None
    assert (told.far.lost, told.far.jitter_ms) == (9, 10.0)
    assert told.far.sent > 20
    await phone.hang_up()
    told = await hall.hears_quality(phone.call_id, lambda one: one.last)
    assert told.far is not None
    assert told.far.lost == 9
