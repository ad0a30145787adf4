"""A line that has no port or no descriptor left: it refuses a call, keeps those that it has, and goes on."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from tests.few_descriptors import spare_descriptors
from tests.gateway.line.line_harness import tone
from tests.gateway.rtp.rtp_exchange import RtpExchange

pytestmark = pytest.mark.asyncio(loop_scope="module")


def taken(port: int) -> socket.socket:
    """That UDP port, as somebody else's."""
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", port))
    return other


def four_free() -> int:
    """The first of four free UDP ports in a row, an even one."""
    for first in range(23_000, 24_000, 4):
        held = []
        try:
            for port in range(first, first + 4):
                held.append(taken(port))
        except OSError:
            continue
        finally:
            for each in held:
                each.close()
        return first
    raise AssertionError("no four ports in a row are free")


async def test_without_a_port_a_call_is_refused_and_with_one_the_next_is_taken(exchange: RtpExchange) -> None:
    first = four_free()
    await exchange.line("n7", capacity=1, rtp_port=first)
    others = [taken(first), taken(first + 3)]  # of each pair one
    with capture_logs() as logs:
        refused = await exchange.phone("n7")
        assert (await refused.invited()).status == 503
    (line,) = [line for line in logs if line["event"] == "line.refused"]
    assert line["why"] == "none of 2 pairs of UDP ports is free on 127.0.0.1 for RTP"
    assert not exchange.hall.told_of(refused.call_id)
    others.pop().close()
    phone, started = await exchange.call("n7")
    assert phone.media == ("127.0.0.1", first + 2)
    phone.talk(tone(1000, rate_hz=8000))
    await exchange.hall.hears_bytes(started.call, 1600)
    others.pop().close()


async def test_without_a_descriptor_a_call_is_refused_and_a_running_one_goes_on(
    exchange: RtpExchange,
) -> None:
    running, started = await exchange.call()
    running.talk(tone(1000, rate_hz=8000))
    refused = await exchange.phone()
    with capture_logs() as logs, spare_descriptors(1):
        assert (await refused.invited()).status == 503
        await exchange.hall.hears_bytes(started.call, 1600)
    assert [line["why"] for line in logs if line["event"] == "line.refused"] == [
        "there is no socket for RTP: Too many open files"
    ]
    await exchange.call()
