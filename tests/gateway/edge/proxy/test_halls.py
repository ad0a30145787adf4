"""Several halls: the router chooses one, and the call gets a line of that hall and of no other."""

from __future__ import annotations

from gateway.edge.router import Accept, IncomingCall, Refuse
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER, Line, Said


async def two_halls(exchange: Exchange, capacity: int = 2) -> tuple[Line, Line]:
    """A line each."""
    return (
        await exchange.line("n0", capacity=capacity, hall="hall0"),
        await exchange.line("n1", capacity=capacity, hall="hall1"),
    )


async def refused(exchange: Exchange, status: int = 503) -> Said:
    """What a new caller hears."""
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    return await caller.next(status)


async def test_each_of_four_calls_at_once_gets_a_line_of_the_hall_that_was_asked(exchange: Exchange) -> None:
    lines = dict(zip(("hall0", "hall1"), await two_halls(exchange, capacity=4), strict=True))
    exchange.desk.hold()
    callers = [await exchange.caller() for _ in range(4)]
    for caller in callers:
        caller.send("INVITE", OFFER)
        await caller.next(100)
    exchange.desk.thinking.set()
    asked: dict[str, set[str]] = {"hall0": set(), "hall1": set()}
    exchange.desk.verdict = lambda call: Accept(f"{call.hall}-{call.facts.caller}-{id(call)}")
    for hall, line in lines.items():
        for _ in range(2):
            invite = await line.invited()
            asked[hall].add(invite["x-vg-call"])
    assert [call.hall for call in exchange.desk.calls].count("hall0") == 2, "the load is shared"
    for hall, calls in asked.items():
        assert len(calls) == 2
        assert all(call_id.startswith(hall) for call_id in calls), "its line is another hall's"


async def test_a_hall_that_takes_no_calls_gets_none(exchange: Exchange) -> None:
    _, there = await two_halls(exchange)
    exchange.desk.away.add("hall0")
    for _ in range(2):
        await exchange.call(await exchange.caller(), there)
    assert {call.hall for call in exchange.desk.calls} == {"hall1"}
    answer = await refused(exchange)
    assert "no hall takes calls" in answer["reason"], "a line of the other hall has room"
    assert answer["retry-after"]


async def test_when_all_lines_of_a_hall_are_taken_another_hall_has_the_call(exchange: Exchange) -> None:
    here = await exchange.line("n0", capacity=4, hall="hall0")
    exchange.desk.away.add("hall1")
    await exchange.call(await exchange.caller(), here)
    there = await exchange.line("n1", capacity=1, hall="hall1")
    exchange.desk.away.clear()
    await exchange.call(await exchange.caller(), there)
    await exchange.call(await exchange.caller(), here)
    assert [call.hall for call in exchange.desk.calls] == ["hall0", "hall1", "hall0"]
    for _ in range(2):
        await exchange.call(await exchange.caller(), here)
    assert "all lines are busy" in (await refused(exchange))["reason"]


async def test_a_call_that_its_hall_does_not_take_goes_to_another_hall(exchange: Exchange) -> None:
    _, there = await two_halls(exchange)

    def only_the_second(call: IncomingCall) -> Accept | Refuse:
        if call.hall == "hall0":
            return Refuse(503, "the hall is full", 5, elsewhere=True)
        return Accept("c1")

    exchange.desk.verdict = only_the_second
    await exchange.call(await exchange.caller(), there)
    assert [call.hall for call in exchange.desk.calls] == ["hall0", "hall1"]


async def test_when_no_hall_takes_a_call_each_was_asked_once(exchange: Exchange) -> None:
    await two_halls(exchange)
    exchange.desk.verdict = lambda call: Refuse(503, f"{call.hall} is full", 5, elsewhere=True)
    assert "hall1 is full" in (await refused(exchange))["reason"]
    assert [call.hall for call in exchange.desk.calls] == ["hall0", "hall1"]
    assert exchange.edges[-1].stats()["slots_free"] == 4, "nothing is held for it any more"


async def test_a_refusal_by_the_plan_is_not_tried_elsewhere(exchange: Exchange) -> None:
    await two_halls(exchange)
    exchange.desk.verdict = lambda call: Refuse(404, "no route")
    assert (await refused(exchange, 404)).status == 404
    assert len(exchange.desk.calls) == 1


async def test_a_slot_is_held_while_the_router_thinks(exchange: Exchange) -> None:
    await exchange.line("n0", capacity=1)
    exchange.desk.hold()
    first = await exchange.caller()
    first.send("INVITE", OFFER)
    await exchange.desk.asked.wait()
    assert "all lines are busy" in (await refused(exchange))["reason"]
    assert len(exchange.desk.calls) == 1, "nobody decides about a call that no line can take"
    first.send("CANCEL")
    await first.next(487)
    exchange.desk.thinking.set()
    assert await exchange.desk.ending() == "cancelled"
    assert exchange.edges[-1].stats()["slots_free"] == 1


async def test_options_say_no_while_no_hall_takes_calls(exchange: Exchange) -> None:
    await two_halls(exchange)
    caller = await exchange.caller()
    caller.send("OPTIONS")
    await caller.next(200)
    exchange.desk.away |= {"hall0", "hall1"}
    caller.send("OPTIONS")
    assert "no hall takes calls" in (await caller.next(503))["reason"]
