"""A call is tried without being placed: the route, and why not those before it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.dialplan import Dialplan, Route
from gateway.dialplan.route_trial import moment_of, try_route
from gateway.dialplan.routes import Hours

PLAN = Dialplan(
    (
        Route(name="day", called=("menu",), hours=(Hours(days="mon-fri"),), zone="Europe/Berlin"),
        Route(name="vip", called=("menu",), headers={"x-tier": ("gold",)}),
        Route(name="menu", called=("menu",)),
    ),
    {},
    Path("/plans"),
)


def test_the_route_and_why_not_those_before_it() -> None:
    tried = try_route(PLAN, called="menu", at="2026-03-01 12:00+01:00")  # a Sunday
    assert tried.route is PLAN.routes[2]
    assert [line.partition(": ")[0] for line in tried.passed] == ["day", "vip"]
    assert "Sun 12:00 CET is outside mon-fri" in tried.passed[0]
    assert tried.status is None


def test_what_a_peer_says_of_it_counts() -> None:
    tried = try_route(PLAN, called="menu", at="2026-03-01 12:00+01:00", headers=["X-Tier = gold"])
    assert tried.route is PLAN.routes[1]


@pytest.mark.parametrize(("called", "status"), [("nobody", 404), ("112", 380)])
def test_what_the_caller_hears_whom_no_route_takes(called: str, status: int) -> None:
    tried = try_route(PLAN, called=called)
    assert (tried.route, tried.status, len(tried.passed)) == (None, status, 3)
    assert called in tried.why
    assert str(status) in tried.why


@pytest.mark.parametrize("at", ["2026-03-01 12:00+01:00", "2026-03-01T12:00", "2026-03-01"])
def test_a_moment_is_read(at: str) -> None:
    assert moment_of(at).utcoffset() is not None
    assert moment_of("2026-03-01 12:00+01:00").utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    "at", ["noon", "", "0001-01-01", "9999-12-31 23:59", "1970-01-01", "2026-13-01", "2026-03-01\x00"]
)
def test_what_is_no_moment_is_said(at: str) -> None:
    with pytest.raises(ValueError, match="is not a time; write"):
        moment_of(at)
