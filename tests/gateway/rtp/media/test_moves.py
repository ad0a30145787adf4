"""Callers whose packets come from elsewhere all at once: what is told of it, and how often."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gateway.ipc.line_messages import RtpMoved
from gateway.rtp.media.call_media import MOVES_EVERY_S
from gateway.rtp.media.socket_pair import SocketPair
from gateway.rtp.media.source_latch import Stream
from gateway.rtp.payloads.packet import write_rtp
from tests.gateway.line.line_harness import tone
from tests.gateway.rtp.media.test_media_pass import PORTS
from tests.gateway.rtp.media.test_quality import Timed
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.rtp_script import agreed


class Caller:
    """A telephone's packets, from whatever socket and under whatever SSRC a test wants."""

    def __init__(self) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for sock in self.sockets:
            sock.bind(("127.0.0.1", 0))
        self.places: list[tuple[str, int]] = [sock.getsockname() for sock in self.sockets]
        self.end = Timed()
        self.pair = SocketPair.open("127.0.0.1", PORTS)
        self.media = self.end.add(0, self.pair, agreed(peer=self.places[0]))
        self._number = 100

    def speaks(self, turns: int = 3, *, at: int = 0, ssrc: int = 1) -> None:
        for _ in range(turns):
            self._number += 1
            packet = write_rtp(0, self._number, 160 * self._number, ssrc, bytes(160))
            self.sockets[at].sendto(packet, ("127.0.0.1", self.pair.port))
            self.end.turn({})

    def waits(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.end.turn({})

    def close(self) -> None:
        self.end.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    yield caller
    caller.close()


def test_where_packets_come_from_first_is_no_move(caller: Caller) -> None:
    caller.speaks(at=1)
    assert caller.media.stream == Stream(caller.places[1], 1)
    assert caller.end.moves == []


def test_a_stream_that_goes_on_from_elsewhere_has_moved(caller: Caller) -> None:
    caller.speaks()
    caller.speaks(at=1)
    assert caller.end.moves == [(Stream(caller.places[0], 1), Stream(caller.places[1], 1))]


def test_another_stream_from_the_same_place_is_told_too(caller: Caller) -> None:
    caller.speaks()
    caller.speaks(ssrc=2)
    assert caller.end.moves == [(Stream(caller.places[0], 1), Stream(caller.places[0], 2))]


def test_who_is_not_believed_has_not_moved_anything(caller: Caller) -> None:
    caller.speaks()
    for _ in range(20):
        caller.speaks(1)
        caller.sockets[2].sendto(write_rtp(0, 9, 9, 666, bytes(160)), ("127.0.0.1", caller.pair.port))
    assert caller.media.latch.strangers > 0
    assert caller.end.moves == []


def test_a_caller_that_described_another_place_has_moved_there(caller: Caller) -> None:
    caller.speaks()
    caller.media.agree(agreed(peer=caller.places[1]))
    assert caller.end.moves == []
    caller.speaks(at=1)
    (move,) = caller.end.moves
    assert move[1].source == caller.media.latch.described == caller.places[1]


def test_one_that_goes_on_as_before_in_spite_of_its_new_description_has_not(caller: Caller) -> None:
    caller.speaks()
    caller.media.agree(agreed(peer=caller.places[1]))
    caller.speaks(10)
    assert caller.end.moves == []


def test_streams_that_take_turns_are_told_once_in_a_while(caller: Caller) -> None:
    caller.speaks()
    for n in range(round(2.5 * MOVES_EVERY_S * 50)):
        caller.speaks(1, ssrc=2 + n % 2)
    assert len(caller.end.moves) == 3


def test_what_still_holds_after_a_while_is_told_then(caller: Caller) -> None:
    caller.speaks()
    caller.speaks(ssrc=2)
    caller.speaks(ssrc=3)
    assert len(caller.end.moves) == 1
    caller.waits(MOVES_EVERY_S)
    caller.speaks(1, ssrc=3)
    assert [now.ssrc for _, now in caller.end.moves] == [2, 3]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_line_tells_its_hall_which_way_a_caller_moved(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_ticks(started.call, 10)
    before, ssrc = phone.rtp_port, f"0x{phone.ssrc:08x}"
    await phone.move()
    moved = await hall.hears(RtpMoved, phone.call_id)
    was, now = f"127.0.0.1:{before}", f"127.0.0.1:{phone.rtp_port}"
    assert moved == RtpMoved(phone.call_id, was, now, "followed", ssrc, ssrc)
