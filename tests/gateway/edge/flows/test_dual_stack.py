"""Bound to `::` the gateway is reached over IPv4 and IPv6, bound to `0.0.0.0` over IPv4 alone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.config import own_address
from gateway.config.certificate import Certificate
from gateway.config.own_address import in_url, reached_at
from gateway.config.ports import Port
from gateway.config.settings import Settings
from gateway.front.http.boundary import source_of
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER, Caller, TcpCaller, TlsCaller
from tests.needs import need_ipv6

SIX_OFFER = OFFER.replace("IP4 127.0.0.1", "IP6 ::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_call_over_either(bare: Exchange, tmp_path: Path, host: str, transport: str) -> None:
    need_ipv6()
    authority = Authority(tmp_path)
    edge = await bare.edge(host="::", tls=Certificate(*authority.sign("gate.example")).serving())
    line = await bare.line()
    caller: Caller
    if transport == "udp":
        caller = Caller(edge.port, host=host)
    elif transport == "tcp":
        caller = TcpCaller(edge.port)
    else:
        caller = TlsCaller(edge.tls_port, authority.trusted())
    caller.edge = (host, caller.edge[1])
    bare.peers.append(await caller.open())
    shown = in_url(host)
    caller.host = shown
    caller.send("INVITE", SIX_OFFER if ":" in host else OFFER)
    invite = await line.invited()
    assert ("IP6 ::1" in invite.body) == (":" in host)
    line.reply(invite, 200, body="v=0\r\no=- 7 7 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n")
    answer = await caller.next(200)
    assert f"@{shown}:" in answer["contact"] or f"sip:{shown}:" in answer["contact"]
    assert f"c=IN IP{6 if ':' in host else 4} {host}\r\n" in answer.body
    assert bare.desk.calls[0].facts.source == host
    caller.learn(answer)
    caller.send("ACK")
    await line.next(method="ACK")
    line.send("INFO")
    asked = await caller.next(method="INFO")
    assert f" {shown}:" in asked["via"]


async def test_all_of_ipv4_is_not_ipv6(bare: Exchange) -> None:
    need_ipv6()
    edge = await bare.edge(host="0.0.0.0")
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("::1", edge.port)
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.close()


@pytest.mark.parametrize(("host", "both"), [("::", True), ("::1", False)])
def test_the_page_too(host: str, both: bool) -> None:
    need_ipv6()
    with Port("X", 0, socket.SOCK_STREAM, "HTTP").bind(host) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        socket.create_connection(("::1", port)).close()
        if both:
            socket.create_connection(("127.0.0.1", port)).close()
        else:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", port))


def test_who_comes_over_ipv4_has_an_address_of_ipv4() -> None:
    assert source_of({"client": ("::ffff:192.0.2.7", 1)}) == "192.0.2.7"
    assert source_of({"client": ("2001:db8::7", 1)}) == "2001:db8::7"


@pytest.mark.parametrize(
    ("host", "four", "six", "shown"),
    [
        ("::", "192.0.2.7", "2001:db8::7", "192.0.2.7"),
        ("::", "127.0.0.1", "2001:db8::7", "[2001:db8::7]"),
        ("0.0.0.0", "127.0.0.1", "2001:db8::7", "127.0.0.1"),
        ("2001:db8::9", "192.0.2.7", "2001:db8::7", "[2001:db8::9]"),
    ],
)
def test_the_panel_names_an_address_that_can_be_dialled(
    monkeypatch: pytest.MonkeyPatch, host: str, four: str, six: str, shown: str
) -> None:
    monkeypatch.setattr(own_address, "seen_from", lambda peer: six if ":" in peer else four)
    assert in_url(reached_at(Settings(host=host))) == shown
