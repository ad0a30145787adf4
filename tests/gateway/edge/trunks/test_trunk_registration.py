"""A registration with a trunk: renewed in time, longer where it wants that, tried again more seldom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.edge.grammar.sip_message import Response
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_registration import LAST_RETRY_S, Registration
from gateway.edge.trunks.trunk_ways import TrunkWays
from gateway.errors import NoFlow


class Registrar:
    """Answers in the place of a trunk; keeps how long it was asked for."""

    def __init__(self, *answers: Response | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def ask(
        self, trunk: Trunk, way: Any, method: str, headers: dict[str, str], **more: Any
    ) -> tuple[Response | None, int]:
        self.asked.append((way.host, int(headers["Expires"])))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, more["cseq"] + 1


def answer(code: int, **headers: str) -> Response:
    made = Response(code, "as told")
    for name, value in headers.items():
        made.headers.set(name.replace("_", "-"), value)
    return made


def registration(registrar: Registrar, now: Callable[[], float], *hosts: str) -> Registration:
    found = tuple(TrunkHost.read(host) for host in hosts or ("192.0.2.1",))
    trunk = Trunk(name="t", hosts=found, user="u", register=True)
    return Registration(TrunkWays(trunk), registrar, now)  # type: ignore[arg-type]


async def test_it_is_renewed_before_it_runs_out() -> None:
    now = [0.0]
    made = registration(Registrar(answer(200, Contact="<sip:u@192.0.2.9>;expires=300")), lambda: now[0])
    assert made.due
    await made.renew()
    assert made.registered
    assert made.why is None
    assert not made.due
    now[0] = 241.0
    assert made.due
    assert made.registered
    now[0] = 301.0
    assert not made.registered


async def test_a_trunk_that_wants_longer_ones_is_asked_for_them() -> None:
    registrar = Registrar(answer(423, Min_Expires="1800"), answer(200))
    made = registration(registrar, lambda: 0.0)
    await made.renew()
    assert [seconds for _, seconds in registrar.asked] == [600, 1800]
    assert made.registered


@pytest.mark.parametrize("least", ["0", "-5", "99999999", "soon", ""])
async def test_a_423_that_cannot_be_meant_is_a_refusal(least: str) -> None:
    made = registration(Registrar(answer(423, Min_Expires=least)), lambda: 0.0)
    await made.renew()
    assert "423" in (made.why or "")


async def test_the_next_address_is_tried_and_the_dead_one_is_noted() -> None:
    registrar = Registrar(NoFlow("it is not there"), None, answer(200))
    made = registration(registrar, lambda: 0.0, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    await made.renew()
    assert [host for host, _ in registrar.asked] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert len(made.ways.down) == 2
    assert made.registered


async def test_what_fails_again_and_again_is_tried_more_and_more_seldom() -> None:
    now, waits = [0.0], []
    made = registration(Registrar(*[PermissionError("wrong password")] * 12), lambda: now[0])
    for _ in range(12):
        await made.renew()
        began = now[0]
        while not made.due:
            now[0] += 1.0
        waits.append(now[0] - began)
    assert waits[0] <= 8
    assert LAST_RETRY_S * 0.7 <= waits[-1] <= LAST_RETRY_S * 1.3
    assert made.why == "wrong password"
