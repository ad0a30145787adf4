"""Acts: what an operator signs, whose act may decide what, and when it is good.

An act names its office (the hash of the ledger's first row), says what exactly was decided, and is good once:
rows keep the ids of acts, so all hosts of one database know them. Which rows need one is for
`consent.ledger.rulings`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from consent.archive.keys import kid_of, read_public
from consent.errors import GrantRefused, OperatorError
from consent.grants.grant import GrantVerifier, unb64
from consent.ledger.operators import ACT_TYP, ROLES
from consent.ledger.standing import GATEWAY, OperatorStanding, Standing, VoiceStanding

FORM: Final = 2
"""What a ledger that this version begins asks of its acts; see `Standing.form`."""
ACT_LIFE_S: Final = 300.0
"""How old an act's signature may be when the office takes it."""

MAY: Final[Mapping[str, frozenset[str]]] = {
    "challenge": frozenset({"registrar"}),
    "register": frozenset({"registrar"}),
    "confirm": frozenset({"registrar"}),
    "review": frozenset({"reviewer", "registrar"}),  # a registrar's only where the gateway took the voice
    "listen": frozenset(ROLES),
    "revoke": frozenset({"registrar", "reviewer"}),
    "erase": frozenset({"registrar"}),
    "block": frozenset({"registrar", "reviewer"}),
    "rotate": frozenset({"registrar"}),
    "revoke-key": frozenset({"registrar", "reviewer"}),  # it only takes away
    "resume": frozenset({"auditor"}),
    "clock": frozenset({"auditor"}),
    "operator": frozenset({"registrar", "reviewer"}),
}
"""Which roles may do what."""


def digest(content: object) -> str:
    """SHA-256, in hexadecimal, of what JSON can say, written in one way only."""
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def signed_act(token: str, what: str, operator: OperatorStanding) -> dict[str, Any]:
    """The claims of an act that this operator signed, whenever that was. Raises `OperatorError`."""
    public = read_public(operator.public)
    try:
        claims = GrantVerifier({kid_of(public): public}).claims(token, ACT_TYP)
    except GrantRefused:
        raise OperatorError(f"this key is not the one the office knows of {operator.name}") from None
    if claims.get("op") != operator.name:
        raise OperatorError(f"{operator.name} did not sign this act")
    if claims.get("act") != what:
        raise OperatorError(f"{operator.name} signed {claims.get('act')!r}, not {what!r}")
    return claims


def read_act(standing: Standing, token: object, what: str) -> tuple[OperatorStanding, dict[str, Any]]:
    """Who signed an act that this ledger may still take, and its claims; its age aside.

    Raises `OperatorError`.
    """
    if not isinstance(token, str) or not token:
        raise OperatorError(f"there is no operator's act; {what} takes one")
    try:
        name = str(json.loads(unb64(token.split(".")[1]))["op"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise OperatorError("this is not an operator's act") from None
    operator = standing.operators.get(name)
    if operator is None:
        raise OperatorError(f"no operator is called {name!r}; `voicegate operator list` shows them")
    if operator.revoked:
        raise OperatorError(f"the operator {name} was revoked")
    claims = signed_act(token, what, operator)
    if operator.role not in MAY[what]:
        roles = " or ".join(sorted(MAY[what]))
        raise OperatorError(f"{name} is {operator.role}; {what} takes a {roles}")
    if (standing.form >= FORM or "office" in claims) and claims.get("office") != standing.office:
        raise OperatorError(f"{name} signed this act for another office")
    if not isinstance(claims.get("jti"), str) or claims["jti"] in standing.spent:
        raise OperatorError(f"this act of {name} was handed in before; an act is good once: sign again")
    if standing.form >= FORM and float(claims["iat"]) < standing.resumed_at:
        raise OperatorError(f"{name} signed this act before the ledger was resumed; sign again")
    return operator, claims


def check_act(
    standing: Standing, token: str, what: str, now: float
) -> tuple[OperatorStanding, dict[str, Any]]:
    """Who signed a fresh act, and its claims. Raises `OperatorError`."""
    operator, claims = read_act(standing, token, what)
    if not young(claims, now, ACT_LIFE_S):
        raise OperatorError(f"the act of {operator.name} was signed at another time; check the clocks")
    return operator, claims


def young(claims: Mapping[str, Any], at: float, life_s: float) -> bool:
    """Whether an act was signed within `life_s` of `at` (seconds since the epoch)."""
    try:
        return abs(at - float(claims["iat"])) <= life_s  # false for a NaN
    except (KeyError, TypeError, ValueError):
        return False


def refuse_two_eyes(standing: Standing, voice: VoiceStanding, operator: OperatorStanding) -> None:
    """Raises `OperatorError` unless this is another pair of eyes, and not one that the first ones lent.

    Two operators whose appointments go back to one founder count as one.
    """
    name = operator.name
    if name == voice.registrar:
        raise OperatorError(f"{name} registered this voice; another operator reviews it")
    if operator.role == "registrar" and voice.registrar != GATEWAY:
        raise OperatorError(f"{name} is registrar; a reviewer reviews it")
    if name in voice.approvals:
        raise OperatorError(f"{name} approved this voice already; another operator is needed")
    for other in (voice.registrar, *voice.approvals):
        if standing.founder(name) == standing.founder(other):
            raise OperatorError(
                f"{name} and {other} were made operators by one founder, {standing.founder(name)}; "
                "an operator of another's line is needed"
            )
