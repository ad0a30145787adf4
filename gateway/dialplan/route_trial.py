"""Which route a call would take, and why not those before it: for the command line and the API alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.config.emergency import is_emergency
from gateway.dialplan.dialplan import Dialplan
from gateway.dialplan.routes import Route

YEARS: Final = range(1971, 2200)
"""Those in which a moment can be told in every zone."""


@dataclass(frozen=True, slots=True)
class RouteTrial:
    """What would become of a call."""

    route: Route | None
    passed: tuple[str, ...]
    """each route before it, with why it does not take the call"""
    at: datetime
    """when it would come, in this machine's zone unless another was asked for"""
    status: int | None = None
    """what the caller hears where no route takes it"""
    why: str = ""


def try_route(
    plan: Dialplan,
    *,
    called: str,
    caller: str = "",
    source: str = "",
    at: str = "",
    headers: Iterable[str] = (),
) -> RouteTrial:
    """Tries a call. `at` is as `moment_of` takes it, empty for now; `headers` are `NAME=VALUE`.

    Raises `ValueError` as `moment_of` does.
    """
    when = moment_of(at) if at else datetime.now().astimezone()
    told = {name.strip().lower(): value.strip() for name, _, value in (one.partition("=") for one in headers)}
    route, passed = plan.explain(called=called, caller=caller, source=source, at=when, headers=told)
    if route is not None:
        return RouteTrial(route, passed, when)
    if is_emergency(called, plan.emergency):
        why = f"{called} is an emergency number: the caller hears 380 (Alternative Service)"
        return RouteTrial(None, passed, when, 380, why)
    why = f"no route takes a call to {called}: the caller hears 404 (Not Found)"
    return RouteTrial(None, passed, when, 404, why)


def moment_of(text: str) -> datetime:
    """The moment of "2026-03-02 18:30", in this machine's zone where it names none. Raises `ValueError`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.year not in YEARS:
        raise ValueError(f'{text!r} is not a time; write "2026-03-02 18:30"')
    return at.astimezone() if at.tzinfo is None else at
