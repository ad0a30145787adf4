"""Where the commands about calls read them: this machine's stores, or with --url another gateway's API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final, Protocol, Self

import click

from gateway.cli.calls.call_stores import CallStores, CallTrails
from gateway.cli.calls.call_table import tame
from gateway.cli.house.house_client import ApiError, HouseClient, is_elsewhere
from gateway.config.settings import load
from gateway.errors import VoicegateError
from gateway.store.call_order import Sort
from gateway.store.call_search import CallSearch

ALIKE: Final = 50
"""Calls that are looked through for the one whose SIP Call-ID is meant: others may begin like it."""
LONGEST_ID: Final = 128
"""As the API takes it."""


class CallSource(Protocol):
    """Calls as the API tells them. Every method raises `VoicegateError`."""

    def __enter__(self) -> Self:
        """Opens it."""

    def __exit__(self, *_: object) -> None:
        """Gives it back."""

    @property
    def place(self) -> str:
        """Where the calls are looked for, as an operator knows it."""

    @property
    def silence(self) -> str:
        """Why it is not known which calls live, as far as that was asked; empty: it is."""

    def calls(self, search: CallSearch, sort: Sort, count: int | None) -> Iterator[dict[str, Any]]:
        """The calls found, in that order, `count` at most; None: all."""

    def refused(self, search: CallSearch, count: int | None) -> Iterator[dict[str, Any]]:
        """The calls that were not taken, the newest first, `count` at most; None: all."""

    def call(self, call_id: str) -> dict[str, Any]:
        """One call, by its id or its caller's SIP Call-ID."""

    def trails(self, call_id: str) -> CallTrails:
        """What went over the wire and into the log in the call of that id; empty where nobody knows."""


class CallsElsewhere:
    """Another gateway's, by its API."""

    def __init__(self, house: HouseClient) -> None:
        self._house = house

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._house.close()

    @property
    def place(self) -> str:
        """Its address."""
        return f"the gateway {self._house.url}"

    @property
    def silence(self) -> str:
        """As that gateway says it."""
        return self._house.silence

    def calls(self, search: CallSearch, sort: Sort, count: int | None) -> Iterator[dict[str, Any]]:
        """Page by page."""
        state = None if search.ended is None else "ended" if search.ended else "live"
        return self._house.calls(count, **_asked(search), state=state, sort=sort)

    def refused(self, search: CallSearch, count: int | None) -> Iterator[dict[str, Any]]:
        """Page by page."""
        return self._house.refused(count, **_asked(search))

    def call(self, call_id: str) -> dict[str, Any]:
        """By its id; a SIP Call-ID is searched for, since not each can stand in a path."""
        try:
            return self._house.call(call_id)
        except ApiError as error:
            if error.status != 404:
                raise
        if (found := self._searched(call_id)) is not None:
            return self._house.call(found)
        said = f"no call {call_id} in {self.place}; `voicegate calls` lists the latest"
        raise VoicegateError(tame(said))

    def trails(self, call_id: str) -> CallTrails:
        """See `CallSource`."""
        course = self._house.call_course(call_id)
        return CallTrails(course["ladder"], course["log"])

    def _searched(self, sip_call_id: str) -> str | None:
        """Our id of the newest call whose caller gave it that Call-ID."""
        if not sip_call_id.isprintable() or len(sip_call_id) > LONGEST_ID:
            return None
        found = itertools.chain(
            self._house.calls(ALIKE, id=sip_call_id, sort="-began"),
            self._house.refused(ALIKE, id=sip_call_id),
        )
        return next((call["call_id"] for call in found if call.get("sip_call_id") == sip_call_id), None)


def call_source(ctx: click.Context) -> CallSource:
    """What --url names, else this machine's stores. Raises `VoicegateError`."""
    settings = load()
    return CallsElsewhere(HouseClient.of(ctx, settings)) if is_elsewhere(ctx) else CallStores(settings)


def _asked(search: CallSearch) -> dict[str, Any]:
    """The search as the API takes it."""
    return {one.name: getattr(search, one.name) for one in fields(search) if one.name != "ended"}
