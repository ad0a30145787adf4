"""The same over TCP and TLS, in the machine's own time: a connection's packets may be late on a busy one."""

from __future__ import annotations

from pathlib import Path

from gateway.config.certificate import Certificate
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import WEB_ANSWER, TlsCaller
from tests.gateway.edge.proxy.test_web_agent import web_call, whole_call


async def test_a_call_over_tcp(exchange: Exchange) -> None:
    await whole_call(exchange, "tcp")


async def test_a_call_over_tls(bare: Exchange, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    edge = await bare.edge(tls=Certificate(*authority.sign("gate.example")).serving())
    caller = TlsCaller(edge.tls_port, authority.trusted())
    bare.peers.append(await caller.open())
    assert (await web_call(bare, caller)).body == WEB_ANSWER
