"""Where answers go, and what we ask a caller later: its own address, at the port where it listens."""

from __future__ import annotations

import pytest

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.responses import way_back
from gateway.edge.proxy.lines import LineInfo
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER, Caller

HOUSE_TIME = True


class _Sending(Caller):
    """A telephone that sends from one port and listens at another: Cisco's 79xx, BroadWorks."""

    async def listening(self, exchange: Exchange) -> _Sending:
        ear = await exchange.caller()
        self.ear, self.kept, self._came = ear, ear.kept, ear._came
        self.via = f"Via: SIP/2.0/UDP 192.0.2.7:{ear.port};branch=z9hG4bK"
        return self

    def text(self, method: str, body: str = "", *extra: str, **options: str) -> str:  # type: ignore[override]  # all text
        self.turn = getattr(self, "turn", 0) + (method not in ("ACK", "CANCEL"))
        return super().text(method, body, *extra, **{"via": f"{self.via}{self.turn}", **options})


async def _split(exchange: Exchange) -> _Sending:
    phone = _Sending(exchange.edges[-1].port)
    exchange.peers.append(await phone.open())
    return await phone.listening(exchange)


async def test_without_rport_a_caller_is_heard_at_one_port_and_told_at_another(exchange: Exchange) -> None:
    line, phone = await exchange.line(), await _split(exchange)
    answer = await exchange.call(phone, line)
    assert "rport" not in answer["via"]
    assert answer["via"].endswith(";received=127.0.0.1")
    phone.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await phone.next(200, "BYE")


async def test_what_we_ask_later_goes_there_too(exchange: Exchange) -> None:
    line, phone = await exchange.line(), await _split(exchange)
    await exchange.call(phone, line)
    line.send("INVITE", ANSWER)
    asked = await phone.next(method="INVITE")
    phone.reply(asked, 200, f"Contact: <sip:alice@127.0.0.1:{phone.ear.port}>", body=OFFER)
    await line.next(200, "INVITE")
    exchange.edges[0].line_down("n0")
    await phone.next(method="BYE")


async def test_after_a_restart_too(exchange: Exchange) -> None:
    line, phone = await exchange.line(), await _split(exchange)
    await exchange.call(phone, line)
    old = exchange.edges[0]
    await old.stop()
    new = await exchange.edge(port=old.port)
    assert line.invite is not None
    new.line_up(LineInfo("n0", "narrow", line.port, 4, calls=(line.invite["x-vg-call"],)))
    phone.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await phone.next(200, "BYE")


async def test_refusals_go_there_too_and_their_ack_and_a_cancel_are_known(exchange: Exchange) -> None:
    phone = await _split(exchange)
    phone.send("OPTIONS")
    await phone.next(503)
    phone.write(
        "OPTIONS sip:x SIP/2.0\r\n" + phone.text("OPTIONS").partition("\r\n")[2].replace("CSeq: ", "CSeq: x")
    )
    await phone.next(400)
    line = await exchange.line()
    phone.send("INVITE", OFFER)
    await line.invited()
    phone.send("CANCEL")
    await phone.next(200, "CANCEL")
    cancelled = await line.next(method="CANCEL")
    line.reply(cancelled, 200)
    assert line.invite is not None
    line.reply(line.invite, 487)
    refusal = await phone.next(487)
    phone.send("ACK", to=refusal["to"])
    phone.kept.clear()
    await phone.ear.nothing(2.0)


async def test_with_rport_and_over_tcp_answers_go_where_the_request_came_from(exchange: Exchange) -> None:
    elsewhere = await exchange.caller()
    for kind in ("udp", "tcp"):
        phone = await exchange.caller(kind)
        rport = ";rport" if kind == "udp" else ""
        via = f"Via: SIP/2.0/{kind.upper()} 127.0.0.1:{elsewhere.port};branch=z9hG4bK1{rport}"
        phone.send("OPTIONS", via=via)
        await phone.next(503)
    await elsewhere.nothing()


class _Port:
    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("via", "port"),
    [
        ("SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1", 5062),
        ("SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1", 5060),
        ("SIP/2.0/UDP pbx_1.lan2", 5060),
        ("SIP / 2.0 / UDP  host : 4000 ; branch=z9hG4bK1", 4000),
        ("sip/2.0/udp [2001:db8::1]:5064;branch=z9hG4bK1", 5064),
        ("SIP/2.0/UDP [2001:db8::1];branch=z9hG4bK1", 5060),
        ("SIP/2.0/UDP 192.0.2.9:5062;maddr=203.0.113.1;branch=z9hG4bK1", 5062),
        ("SIP/2.0/UDP 192.0.2.9:5062;received=203.0.113.1;branch=z9hG4bK1", 5062),
        ("SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1, SIP/2.0/UDP x:5063;rport", 5062),
        ('SIP/2.0/UDP 192.0.2.9:5062;x="a, b;rport";branch=z9hG4bK1', 5062),
        ("SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;rport", 777),
        ("SIP/2.0/UDP 192.0.2.9:5062;RPort=9;branch=z9hG4bK1", 777),
        ("SIP/2.0/UDP 192.0.2.9:5062; rport ;branch=z9hG4bK1", 777),
        ("SIP/2.0/UDP 192.0.2.9:0;branch=z9hG4bK1", 777),
        ("SIP/2.0/UDP 192.0.2.9:65536;branch=z9hG4bK1", 777),
        ("SIP/2.0/UDP 192.0.2.9:99999999999;branch=z9hG4bK1", 777),
        ("SIP/2.0/UDP", 777),
        ("", 777),
        ("nonsense " * 500, 777),
    ],
)
def test_the_port_is_vias_and_the_address_is_never(via: str, port: int) -> None:
    flow = Flow("udp", "192.0.2.1", 777, _Port(), ("192.0.2.1", 777))
    back = way_back(via, flow)
    assert (back.host, back.port, back.came_from) == ("192.0.2.1", port, 777)
    assert back._where == ("192.0.2.1", port)
    assert way_back(via, Flow("tcp", "192.0.2.1", 777, _Port())).port == 777
