"""Lines die and edges restart; callers are told, or notice nothing."""

from __future__ import annotations

from pathlib import Path

from gateway.edge.proxy.lines import LineInfo
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import DTMF, KEY_5, OFFER

HOUSE_TIME = True


async def test_callers_of_a_dead_line_get_a_bye(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    exchange.edges[0].line_down("n0")
    bye = await caller.next(method="BYE")
    assert (bye.tag("from"), bye.tag("to")) == (line.own_tag, caller.own_tag)
    assert await exchange.desk.ending() == "failed: its line died"
    caller.reply(bye, 200)
    caller.send("BYE")
    await caller.next(481, "BYE")


async def test_an_invite_on_a_dying_line_is_refused_at_once(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    await line.invited()
    exchange.edges[0].line_down("n0")
    assert (await caller.next(503, within_s=0.5))["retry-after"] == "5"
    assert await exchange.desk.ending() == "failed: the line does not answer"
    assert not exchange.desk.endings


async def test_a_line_that_came_back_elsewhere_is_another_line(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    exchange.edges[0].line_down("n0")
    await caller.next(method="BYE")
    reborn = await exchange.line("n0")
    caller.send("INFO")
    await caller.next(481, "INFO")
    await reborn.nothing()


async def test_a_line_that_died_unnoticed_is_noticed_when_it_is_back(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    await exchange.line("n0")
    await caller.next(method="BYE")
    assert await exchange.desk.ending() == "failed: its line died"


async def test_a_new_edge_routes_the_calls_of_the_old_one(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line, "Record-Route: <sip:10.0.0.9;lr>")
    assert line.invite is not None
    old = exchange.edges[0]
    await old.stop()
    new = await exchange.edge(port=old.port)
    caller.send("INFO", KEY_5, DTMF)  # before the line has said hello
    info = await line.next(method="INFO")
    new.line_up(LineInfo("n0", "narrow", line.port, 4, calls=(line.invite["x-vg-call"],)))
    assert new.stats()["slots_free"] == 3
    line.reply(info, 200)
    await caller.next(200, "INFO")
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")
    assert new.stats()["slots_free"] == 4


async def test_a_bye_of_the_line_finds_its_caller_after_a_restart(bare: Exchange, tmp_path: Path) -> None:
    old = await bare.edge(loopback_port_file=tmp_path / "port")
    line, caller = await bare.line(), await bare.caller()
    await bare.call(caller, line, "Record-Route: <sip:10.0.0.9;lr>")
    assert line.invite is not None
    await old.stop()
    new = await bare.edge(port=old.port, loopback_port_file=tmp_path / "port")
    new.line_up(LineInfo("n0", "narrow", line.port, 4, calls=(line.invite["x-vg-call"],)))
    line.send("BYE")
    await line.next(200, "BYE")
    assert (await caller.next(method="BYE"))["route"] == "<sip:10.0.0.9;lr>"
    assert new.stats()["slots_free"] == 4
