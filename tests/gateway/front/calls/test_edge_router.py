"""What the edge is told about calls, of parts that are doubles."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from gateway.edge.router import Accept, IncomingCall, Refuse, RefusedInvite, WebAnswer
from gateway.errors import CallRefused, HallRefused
from gateway.front.calls.edge_router import EdgeRouter
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End

FACTS = CallFacts(caller="a", called="b", display="", source="192.0.2.1", transport="udp")


class Parts:
    """Routing, halls, web calls, refusals and closing, all of them; `answer` is what is given or raised."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.noted: list[Any] = []
        self.dialplan = SimpleNamespace(answers_emergencies=True)
        part: Any = self
        self.out: set[str | None] = set()
        self.router = EdgeRouter(part, part, part, part, part, lambda user: user, part)

    def refusal(self, trunk: str | None) -> Refuse | None:
        return Refuse(503, "out", 300) if trunk in self.out else None

    async def _said(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    offer = place = renew = _said

    def of(self, held: dict[str, int]) -> str | None:
        return min(held, key=lambda hall: held[hall], default=None)

    def none(self) -> CallRefused:
        return CallRefused(503, "no time", retry_after_s=9)

    def target_of(self, call_id: str, target: str) -> str | None:
        known = {"desk": "sip:desk@192.0.2.9", "office": "trunk:carrier/+4930"}
        return known.get(target) if call_id == "c1" else None

    def has(self, call_id: str) -> bool:
        return call_id == "w1"

    async def press(self, call_id: str, digit: str) -> None:
        self.noted.append((call_id, digit))

    def note(self, facts: CallFacts, status: int, reason: str, **ids: str | None) -> None:
        self.noted.append((facts, status, reason, ids))

    async def ended(self, call_id: str, how: CallEnding) -> None:
        self.noted.append((call_id, how.end))


async def asked(answer: Any, way: str) -> Any:
    router = Parts(answer).router
    if way == "offered":
        return await router.offered(IncomingCall(FACTS, "narrow", "", "hall0"))
    if way == "web_offered":
        return await router.web_offered(FACTS, "v=0")
    return await router.web_renewed("c1", "v=0")


@pytest.mark.parametrize(
    ("way", "answer", "heard"),
    [
        ("offered", SimpleNamespace(call_id="c1"), Accept("c1")),
        ("web_offered", ("c1", "v=0"), WebAnswer("c1", "v=0")),
        ("web_renewed", "v=0", WebAnswer("c1", "v=0")),
    ],
)
async def test_who_may_come_in_does(way: str, answer: Any, heard: object) -> None:
    assert await asked(answer, way) == heard


@pytest.mark.parametrize("way", ["offered", "web_offered", "web_renewed"])
async def test_a_refusal_is_told_as_it_was_meant(way: str) -> None:
    refused = await asked(CallRefused(486, "busy", retry_after_s=5), way)
    assert isinstance(refused, Refuse)
    assert (refused.status, refused.reason, refused.retry_after_s, refused.elsewhere) == (
        486,
        "busy",
        5,
        False,
    )


async def test_another_hall_may_take_what_one_refused() -> None:
    assert (await asked(HallRefused(503, "full"), "offered")).elsewhere


@pytest.mark.parametrize("way", ["offered", "web_offered"])
async def test_a_fault_of_ours_refuses_the_call_and_says_nothing_of_itself(way: str) -> None:
    with structlog.contextvars.bound_contextvars(call_id="c7"):
        refused = await asked(RecursionError("what nobody expects"), way)
    assert (refused.status, refused.reason) == (500, "Server Internal Error")
    assert refused.call_id == ("c7" if way == "offered" else None)


async def test_a_trunk_that_is_out_of_service_takes_no_call_either_way() -> None:
    parts = Parts(SimpleNamespace(call_id="c1"))
    call = IncomingCall(replace(FACTS, trunk="carrier"), "narrow", "", "hall0")
    assert await parts.router.offered(call) == Accept("c1")
    assert parts.router.target_of("c1", "office") == "trunk:carrier/+4930"
    parts.out.add("carrier")
    out = Refuse(503, "out", 300)
    assert await parts.router.offered(call) == out
    assert await parts.router.web_offered(call.facts, "v=0") == out
    assert parts.router.target_of("c1", "office") == out
    assert parts.router.target_of("c1", "desk") == "sip:desk@192.0.2.9"


async def test_the_rest_is_passed_on() -> None:
    parts = Parts(None)
    router = parts.router
    assert router.hall_for({"hall0": 3, "hall1": 1}) == "hall1"
    assert router.no_hall() == Refuse(503, "no time", 9)
    assert router.answers_emergencies()
    assert [router.on_web_line(one) for one in ("w1", "c1")] == [True, False]
    assert router.target_of("c1", "desk") == "sip:desk@192.0.2.9"
    assert router.target_of("c1", "moon") == Refuse(403, "the call's dialplan names no target moon")
    await router.web_pressed("c1", "5")
    router.refused(RefusedInvite(FACTS, 403, "no", "sip-id", None))
    await router.ended("c1", CallEnding(End.CALLER))
    ids = {"sip_call_id": "sip-id", "call_id": None}
    assert parts.noted == [("c1", "5"), (FACTS, 403, "no", ids), ("c1", End.CALLER)]


@pytest.mark.parametrize("way", ["offered", "web_offered"])
async def test_a_user_whose_role_may_not_call_hears_so(way: str) -> None:
    """Here each user's role is called as the user is."""
    parts = Parts(SimpleNamespace(call_id="c1") if way == "offered" else ("c1", "v=0"))

    async def asks(user: str) -> Any:
        facts = replace(FACTS, user=user)
        if way == "offered":
            return await parts.router.offered(IncomingCall(facts, "narrow", "", "hall0"))
        return await parts.router.web_offered(facts, "v=0")

    for user in ("caller", "operator", "admin"):
        assert not isinstance(await asks(user), Refuse)
    for user in ("watcher", "nobody", "a role of before"):
        refused = await asks(user)
        assert (refused.status, "calls.place" in refused.reason) == (403, True)
