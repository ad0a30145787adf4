"""Whether callers' sound is encrypted (SRTP): by the house's rule, or by that of a user or a trunk.

Keys stand in descriptions (RFC 4568), so who hears the signalling has them: over UDP and TCP they are worth
nothing, and offers of encryption count as none there, unless the operator says that the way is private.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sdes import SrtpRule

NOT_SECURE: Final = "the sound must be encrypted here, and its keys come over TLS only"

RuleOf = Callable[[str], SrtpRule | None]
"""The rule of a user or a trunk; None: the house's holds."""


@dataclass(frozen=True, slots=True)
class SrtpPolicy:
    """See the module."""

    house: SrtpRule = "optional"
    over_plain: bool = False
    """keys count over UDP and TCP too"""
    of_user: RuleOf | None = None
    of_trunk: RuleOf | None = None

    def rule(self, user: str = "", trunk: str = "") -> SrtpRule:
        """What is wanted of a call: its trunk's rule, else its user's, else the house's."""
        for name, rule_of in ((trunk, self.of_trunk), (user, self.of_user)):
            own = rule_of(name) if name and rule_of is not None else None
            if own is not None:
                return own
        return self.house

    def takes_keys(self, flow: Flow) -> bool:
        """Whether keys that come this way count."""
        return self.over_plain or flow.secure

    def over(self, rule: SrtpRule, flow: Flow) -> SrtpRule:
        """What a rule comes to for a message that comes or goes this way.

        `required` stays: who asks `barred` first sends no key in the clear.
        """
        return "off" if rule == "optional" and not self.takes_keys(flow) else rule

    def barred(self, rule: SrtpRule, flow: Flow) -> str:
        """Why no description is taken this way, for 488; empty: it is."""
        return NOT_SECURE if rule == "required" and not self.takes_keys(flow) else ""
