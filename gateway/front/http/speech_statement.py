"""The signed statement that a call's voice is synthetic: by whom, for whom, and how the sound shows it.

It is the second layer beside the mark, for machines: a JWS (RFC 7515) by the consent office's key. A browser
gets it on the data channel, a telephone the URL of it in the answer (`gateway.edge.grammar.speech_notice`),
and anybody who has the URL reads it there. It names no caller.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from consent.grants.grant import unb64
from consent.grants.scope import STOCK
from consent.service.front_office import FrontOffice
from gateway.config.own_address import in_url, reached_at
from gateway.config.paths import grant_keys_path
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan, Disclose
from gateway.store.registry import CallRow, Registry
from model import __version__
from model.tasks import failed

NOBODYS: Final = "synthetic; no person's voice"
A_PERSONS: Final = "synthetic; a copy of a person's voice, used with their consent"
MARK: Final = "keyed spread-spectrum watermark in the sound (voicegate)"


class SpeechStatements:
    """Statements of this gateway's calls."""

    def __init__(
        self,
        office: FrontOffice,
        registry: Registry,
        plan_of: Callable[[str | None], Dialplan],
        settings: Settings,
        issuer: str,
    ) -> None:
        """`plan_of` a version; `issuer`: the id of the mark's key, this gateway's name in the registry."""
        self._office = office
        self._registry = registry
        self._plan_of = plan_of
        self._settings = settings
        self._issuer = issuer

    async def of(self, call_id: str) -> str | None:
        """The statement of a call; None for one that is not known, or while it cannot be signed.

        Never raises: a call goes on without it, as its sound is marked all the same.
        """
        try:
            return await asyncio.to_thread(self._signed, call_id)
        except Exception as error:
            failed("statement", error, call_id=call_id)
            return None

    async def shown(self, call_id: str) -> dict[str, Any] | None:
        """The same as JSON for a reader: `statement` (the JWS), `claims`, and the public `keys` by kid."""
        token = await self.of(call_id)
        if token is None:
            return None
        keys = json.loads(grant_keys_path(self._settings).read_text())["keys"]
        return {"statement": token, "claims": json.loads(unb64(token.split(".")[1])), "keys": keys}

    def _signed(self, call_id: str) -> str | None:
        row = self._registry.get(call_id)
        return None if row is None else self._office.sign_speech_statement(self._claims(row))

    def _claims(self, row: CallRow) -> dict[str, Any]:
        settings = self._settings
        claims: dict[str, Any] = {
            "iss": f"voicegate {self._issuer}",
            "jti": row.call_id,
            "synthetic": True,
            "voice": NOBODYS if row.voice in (None, STOCK) else A_PERSONS,
            "on_behalf_of": self._principals(row),
            "began": row.started_at,
            "system": f"voicegate {__version__}, engine {settings.engine}",
            "mark": {"technique": MARK, "key": row.gateway},
        }
        if settings.detector:
            claims["detector"] = f"http://{in_url(reached_at(settings))}:{settings.detector}/"
        return claims

    def _principals(self, row: CallRow) -> list[str]:
        """For whom the machine speaks, as the route discloses it in the plan that the call began with."""
        routes = self._plan_of(row.plan).routes
        verbs = next((route.do for route in routes if route.name == row.route), ())
        return [verb.principal for verb in verbs if isinstance(verb, Disclose)]
