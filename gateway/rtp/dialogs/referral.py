"""A transfer of ours by REFER (RFC 3515): the caller calls somebody else, and says how that goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from gateway.edge.dialogs.transaction import Served
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Response

_FRAGMENT: Final = re.compile(r"SIP/2\.0 ([1-6]\d\d) ?([^\r\n]*)")
_BARE: Final = re.compile(r"[^\s<>;,?]+")
"""A URI that may stand without brackets (RFC 3261 §20.10)."""


class Referral:
    """One dialog's, one after another. `told` gets each one's final status and phrase, once."""

    __slots__ = ("_asked", "_told")

    def __init__(self, told: Callable[[int, str], None]) -> None:
        self._told = told
        self._asked = False

    def headers(self, target: str, contact: str) -> Mapping[str, str]:
        """What the REFER says; from now on its outcome is awaited."""
        self._asked = True
        return {"Refer-To": target if _BARE.fullmatch(target) else f"<{target}>", "Referred-By": contact}

    def answered(self, answer: Response | None) -> None:
        """The answer to our REFER; None when none came. One that takes it says nothing yet."""
        if answer is None:
            self._ends(408, "Request Timeout")
        elif answer.code >= 300:
            self._ends(answer.code, answer.phrase)

    def notified(self, notify: Served) -> None:
        """How it goes (§2.4.5). Answers the NOTIFY."""
        said = _FRAGMENT.match(notify.request.body.decode(errors="replace"))
        known = self._asked and said is not None
        notify.answer(response(notify.request, notify.flow, 200 if known else 481))
        if said is not None and int(said[1]) >= 200:
            self._ends(int(said[1]), said[2])

    def _ends(self, status: int, phrase: str) -> None:
        if self._asked:
            self._asked = False
            self._told(status, phrase)
