"""How long a call was spoken to under each of its grants: from the halls' words into the ledger, once.

A hall tells it whenever it asks for a grant and when the call is over; what it told last is kept in SQL. So
the ledger learns of every grant, at most a renewal's interval off, whichever of line, hall, front or gateway
dies first. Every method blocks, as the office's and the registry's do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from consent.errors import ConsentError
from consent.grants.grant import VoiceGrant
from consent.service.front_office import FrontOffice
from gateway.dialplan import Route
from gateway.ipc.hall_messages import SpokenUnder
from gateway.store.call_grants import CallGrant, CallGrants
from gateway.store.registry import Registry, RegistryError

log = structlog.get_logger("routing")


class CallUsage:
    """One front's."""

    def __init__(self, office: FrontOffice, registry: Registry) -> None:
        """Raises `RegistryError` when its table cannot be made."""
        self._office = office
        self._grants = CallGrants(registry)
        self._grants.open()

    def begins(self, grant: VoiceGrant, route: Route) -> None:
        """A grant is about to be used for `route`. Raises `RegistryError`: then nothing may be said by it."""
        self._grants.enter(CallGrant.of(grant, route.file))

    def is_unused(self, grant: VoiceGrant) -> None:
        """Nothing will be said under a grant that was given."""
        self._note(grant.jti, grant.call_id, 0.0, grant.scope.dialplan)

    def spoke(self, spoken: Iterable[SpokenUnder]) -> None:
        """What was said until now, while the call goes on."""
        try:
            self._grants.spoke({said.jti: said.seconds for said in spoken})
        except RegistryError as error:
            log.error("usage.not_kept", error=str(error))

    def over(self, call_id: str, spoken: Sequence[SpokenUnder] = ()) -> None:
        """A call is over; `spoken` is what is known of it besides what was kept."""
        self.spoke(spoken)  # kept first: the ledger may be away, and is told later
        try:
            grants = self._grants.of_call(call_id)
        except RegistryError as error:
            log.error("usage.not_recorded", call_id=call_id, error=str(error))
            return
        self._note_all(grants, {said.jti: said.seconds for said in spoken})

    def left_over(self, gateways: Sequence[str]) -> None:
        """Grants of calls that are over, of which the ledger was not told: somebody died before."""
        try:
            grants = self._grants.left_over(gateways)
        except RegistryError as error:
            log.error("registry.not_read", error=str(error))
            return
        self._note_all(grants, {})

    def _note_all(self, grants: Iterable[CallGrant], spoken: Mapping[str, float]) -> None:
        for grant in grants:
            seconds = max(grant.spoken_s, spoken.get(grant.jti, 0.0))
            if grant.noted or not self._note(grant.jti, grant.call_id, seconds, grant.route):
                continue
            try:
                self._grants.note(grant.jti, seconds)
            except RegistryError as error:  # the office takes it once, however often it is told
                log.error("usage.not_kept", call_id=grant.call_id, error=str(error))

    def _note(self, jti: str, call_id: str, seconds: float, route: str) -> bool:
        """Whether the ledger took it."""
        try:
            self._office.record_usage(jti=jti, call_id=call_id, seconds=seconds, dialplan=route)
        except ConsentError as error:
            log.error("usage.not_recorded", call_id=call_id, seconds=seconds, error=str(error))
            return False
        return True
