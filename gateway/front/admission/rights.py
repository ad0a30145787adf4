"""Who may do what over HTTP: the one list of rights, the roles that are named sets of them, and who asks.

A token, a login at the console and a telephone's user have one role each. Consent's operators are another
thing: they sign with keys of their own (`consent.ledger.operators`), and no right here is a signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Right = Literal[
    "calls.read",
    "calls.end",
    "calls.place",
    "calls.listen",
    "calls.takeover",
    "recordings.read",
    "plans.reload",
    "users.write",
    "trunks.write",
    "tokens.write",
]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)

ROLES: Final[dict[str, frozenset[Right]]] = {
    "admin": frozenset(RIGHTS),
    "operator": frozenset(
        {
            "calls.read",
            "calls.end",
            "calls.place",
            "calls.listen",
            "calls.takeover",
            "recordings.read",
            "plans.reload",
        }
    ),
    "watcher": frozenset({"calls.read"}),
    "caller": frozenset({"calls.place"}),
    "nobody": frozenset(),
}
"""Roles by name. `caller` is a telephone's user unless it is told otherwise; `nobody` is locked out."""
HERE: Final[frozenset[Right]] = frozenset({"calls.read"})
"""What whoever sits at the machine may do without a token, while the gateway is bound to loopback."""
PAGE: Final[frozenset[Right]] = frozenset({"calls.read", "calls.place"})
"""The same for the page that was opened there: its button calls."""


def rights_of(role: str) -> frozenset[Right]:
    """Of a role that is not known (any more), none."""
    return ROLES.get(role, frozenset())


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: `name` is for logs, `token_id` names the token that it showed or logged in with."""

    name: str
    role: str
    rights: frozenset[Right]
    token_id: str = ""
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""

    def may(self, right: Right) -> bool:
        """Whether it has that right."""
        return right in self.rights

    def may_give(self, role: str) -> bool:
        """Whether it may make somebody of that role: nobody gives what it has not."""
        return role in ROLES and rights_of(role) <= self.rights
