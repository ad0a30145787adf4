"""What a call speaks by: the route that it follows, its grant for that, and why its voice may not be heard.

A route and the grant to speak it are one thing here: whoever changes the route is without a grant until a new
one comes, and a grant for anything else is refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from consent.errors import GrantRefused
from consent.grants.grant import VoiceGrant
from gateway.dialplan import Route
from gateway.hall.media.audio import HOUSE_HZ
from gateway.ipc.hall_messages import SpokenUnder

REMEMBERED: Final = 256
"""Grants of one call whose seconds are told again whenever the front is asked for anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """The time in which a call follows one route, by one grant and its renewals."""

    route: Route
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    """there is a grant, or never will be one: the term is over"""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """the call went on as another route: what was made in this term may not be heard any more"""


class Licence:
    """One call's. It begins without a grant; once muted, it stays muted."""

    def __init__(self, route: Route) -> None:
        self.term = Term(route)
        self.grant: VoiceGrant | None = None
        """the present term's last one that was verified"""
        self.muted: str | None = None
        """why the voice may not be heard (revoked, expired, no mark, …); the leg plays silence"""
        self._since = 0
        """what the voice had said in samples when the present grant came"""
        self._before: dict[str, float] = {}
        """seconds said under the grants that are over, by jti, the newest `REMEMBERED`"""

    @property
    def route(self) -> Route:
        """The route that the call follows now."""
        return self.term.route

    @property
    def token(self) -> str | None:
        """The grant's token, for an engine; None while the call may not speak."""
        return self.grant.token if self.grant is not None and self.muted is None else None

    def follow(self, route: Route, said: int) -> None:
        """The call goes on as `route`, so its grant is over.

        `said`: what was said under the call's grants until now, samples at 24 kHz.
        """
        for spoken in self.spoken(said):
            self._before[spoken.jti] = spoken.seconds
        if len(self._before) > REMEMBERED:
            del self._before[next(iter(self._before))]
        over, self.term, self.grant = self.term, Term(route), None
        over.over.set()
        over.granted.set()

    def use(self, grant: VoiceGrant, said: int) -> bool:
        """Takes a verified grant; True when it renews the present one. `said`: as for `follow`.

        Raises `GrantRefused` for one that is not for the call's route, or comes in another one's place.
        """
        if not self.route.is_spoken_by(grant.scope):
            raise GrantRefused(
                "scope", f"the grant is for {grant.scope}, and the call follows {self.route.name}"
            )
        renewed = self.grant is not None
        if self.grant is None:
            self._since = said
        elif grant.jti != self.grant.jti:
            raise GrantRefused("replayed", "another grant of this call has taken its place")
        self.grant = grant
        self.term.granted.set()
        return renewed

    def spoken(self, said: int) -> tuple[SpokenUnder, ...]:
        """What was said under each grant of this call. `said`: as for `follow`."""
        seconds = dict(self._before)
        if self.grant is not None:
            seconds[self.grant.jti] = max(0, said - self._since) / HOUSE_HZ
        return tuple(SpokenUnder(jti, round(length, 2)) for jti, length in seconds.items())

    def mute(self, reason: str) -> bool:
        """False when the voice was muted already: the first reason stays."""
        if self.muted is not None:
            return False
        self.muted = reason
        return True
