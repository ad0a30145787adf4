"""Rulings: which rows of the ledger count, and which are void.

What binds is the act, not the row: a row that needs an operator's act and has no valid one is void, whoever
signed the row. `take` judges each row by what the ledger said before it, the same at load, at a verification,
in a bundle and before a row is written. A void row changes nothing, but that a voice is taken back: a forged
revocation or erasure silences, and `voicegate ledger verify` names its row. Rows that only take back, and
come from no operator, need no act: an owner with a PIN, the schedule, an office that goes on after a restore.

Rows from before an older version's ledger said `ledger.acts` are judged by what their acts bound then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.archive.keys import kid_of, read_public
from consent.errors import OperatorError
from consent.grants.grant import unb64
from consent.ledger.acts import ACT_LIFE_S, FORM, MAY, read_act, refuse_two_eyes, young
from consent.ledger.operators import ROLES
from consent.ledger.standing import GATEWAY, OperatorStanding, Standing, VoiceStanding

ROW_SLACK_S: Final = 150.0
"""How much further a row's time may be from its act's: hosts' clocks differ, and rows never go back."""
IDS_KEPT: Final = 1_000
"""Ids of acts that are kept whatever their time; more, while one of them could be handed in again."""
UNDECIDED_S: Final = 30 * 24 * 3600.0
"""A registration that nobody decided on, or that was rejected, is erased after so long."""
MAX_REASON: Final = 500
VOID: Final = "it is void: "
OWNER: Final = "owner by phone, call "
"""By whom a revocation is that an owner made with the PIN; the call's id follows."""

HOUSE_KINDS: Final = (
    "ledger.opened", "ledger.acts", "ledger.resumed", "key.rotated", "key.revoked", "operator.added",
    "operator.revoked",
)  # fmt: skip
"""Rows about no one voice, by which every voice's rows are judged."""
TAKING: Final = frozenset({"voice.revoked", "voice.erased"})
"""Kinds that take effect even when they are void: a voice falls silent rather than speak."""

Body = Mapping[str, Any]


class Judged(Protocol):
    """What is read of a row (`consent.ledger.chain.Row`) to judge it."""

    @property
    def seq(self) -> int:
        """Its number."""

    @property
    def at_ms(self) -> int:
        """Its time."""

    @property
    def kind(self) -> str:
        """What it says."""

    @property
    def subject(self) -> str | None:
        """The voice that it is about."""

    @property
    def prev(self) -> str:
        """Hash of the row before it."""

    @property
    def hash(self) -> str:
        """Its hash."""

    @property
    def kid(self) -> str:
        """The office's key that signed it."""

    @property
    def table(self) -> dict[str, Any]:
        """Its body, read."""


def judge(standing: Standing, row: Judged) -> str | None:
    """Why a row is void, by what the ledger said before it; None when it counts."""
    rule = _RULES.get(row.kind)
    if rule is None:
        return None
    try:
        rule(standing, row, row.table)
    except OperatorError as error:
        return f"{VOID}{error}"
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return VOID + "it makes no sense after the rows before it"
    return None


def take(standing: Standing, row: Judged) -> str | None:
    """Judges a row and applies it, if it counts or takes a voice back. Returns why it is void, or None."""
    if row.seq == 1:
        standing.office = row.hash
    fault = judge(standing, row)
    if fault is not None and row.kind not in TAKING:
        return fault
    try:
        body = row.table
        standing.apply(row.kind, row.subject, row.at_ms, body)
        if fault is None:
            _spend(standing, row, body)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return fault or VOID + "it makes no sense after the rows before it"
    return fault


def replay(rows: Iterable[Judged]) -> tuple[Standing, dict[int, str]]:
    """What these rows say, in order, and which of them are void, by number."""
    standing, void = Standing(), {}
    for row in rows:
        if (fault := take(standing, row)) is not None:
            void[row.seq] = fault
    return standing, void


def introduced(standing: Standing, row: Judged) -> dict[str, Ed25519PublicKey]:
    """The key, by kid, that a row itself puts in force and is signed with, if the row counts."""
    if row.kind == "ledger.resumed" and judge(standing, row) is None and "kid" in (body := row.table):
        return {body["kid"]: read_public(body["public"])}
    return {}


def _spend(standing: Standing, row: Judged, body: Body) -> None:
    """Remembers an act's id while it could be handed in again."""
    found: list[tuple[str, float]] = []
    if row.kind == "act.refused" or row.kind == "voice.refused":
        found.append((str(body.get("jti", "")), float(body.get("iat", 0.0))))
    elif body.get("act"):
        claims = json.loads(unb64(body["act"].split(".")[1]))
        found.append((str(claims["jti"]), float(claims["iat"])))
        if row.kind == "ledger.resumed":
            standing.resumed_at = float(claims["iat"])
    if isinstance(register := body.get("register"), dict):
        found.append((str(register["jti"]), float(register["iat"])))
    standing.spent.update((jti, iat) for jti, iat in found if jti)
    if standing.form >= FORM and len(standing.spent) > IDS_KEPT:
        oldest = row.at_ms / 1000 - 2 * (ACT_LIFE_S + ROW_SLACK_S)
        for jti in [jti for jti, iat in list(standing.spent.items())[:-IDS_KEPT] if iat < oldest]:
            del standing.spent[jti]


def _act_of(
    standing: Standing, row: Judged, body: Body, what: str, by: str = "by", *, aged: bool = True
) -> tuple[OperatorStanding, dict[str, Any]]:
    """The act of a row, signed by whom the row names; `aged`: when the row was written."""
    operator, claims = read_act(standing, body.get("act"), what)
    if body[by] != operator.name:
        raise OperatorError(f"{operator.name} signed this act, and the row names {body[by]!r}")
    if aged and standing.form >= FORM and not young(claims, row.at_ms / 1000, ACT_LIFE_S + ROW_SLACK_S):
        raise OperatorError(f"the act of {operator.name} was signed at another time than the row's")
    return operator, claims


def _binds(operator: OperatorStanding, claims: Body, what: str, **wanted: object) -> None:
    """Raises `OperatorError` unless the act says exactly this."""
    for key, value in wanted.items():
        if key not in claims or claims[key] != value:
            raise OperatorError(f"{operator.name} signed {what} (its {key} differs)")


def _voice(standing: Standing, row: Judged) -> VoiceStanding:
    voice = standing.voices.get(row.subject or "")
    if voice is None:
        raise OperatorError("it is about no voice that the ledger knows")
    return voice


def _opened(standing: Standing, row: Judged, body: Body) -> None:
    if row.seq != 1:
        raise OperatorError("only the first row opens a ledger")


def _added(standing: Standing, row: Judged, body: Body) -> None:
    name, role, public = str(body["name"]), str(body["role"]), str(body["public"])
    if role not in ROLES:
        raise OperatorError(f"{role!r} is not a role")
    read_public(public)
    if body.get("act"):
        operator, claims = _act_of(standing, row, body, "operator", "added_by")
        _binds(operator, claims, "for another operator", name=name, role=role, public=public)
    elif body["added_by"]:
        raise OperatorError(f"there is no act of {body['added_by']!r}")
    elif standing.voices or any(
        known.role == role and not known.revoked for known in standing.operators.values()
    ):
        raise OperatorError(
            f"there is a {role} already, or there are voices: an operator adds others (--as NAME)"
        )
    if name in standing.operators:
        raise OperatorError(f"there is, or was, an operator {name}; take another name")
    if any(known.public == public for known in standing.operators.values()):
        raise OperatorError("this key is another operator's")


def _removed(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "operator", aged=False)
    name = body["name"]
    known = standing.operators.get(name)
    if known is None or claims.get("name") != name or claims.get("role") != "revoked":
        raise OperatorError(f"no operator is called {name!r}, or {operator.name} signed something else")
    if known.revoked:
        raise OperatorError(f"{name} was revoked already")


def _challenged(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "challenge")
    if standing.form >= FORM:
        _binds(operator, claims, "another challenge", terms=body["terms"], by_phone=body["by_phone"])


def _submitted(standing: Standing, row: Judged, body: Body) -> None:
    if not row.subject or row.subject in standing.voices:
        raise OperatorError("it names no voice, or one that was registered before")
    registrar = str(body["registrar"])
    if standing.form < FORM:
        known = standing.operators.get(registrar)
        if registrar != GATEWAY and (known is None or known.revoked or known.role not in MAY["register"]):
            raise OperatorError(f"{registrar!r} is not a registrar")
        return
    by_phone = standing.challenges.get(body["challenge"])
    if by_phone is None:
        raise OperatorError("no operator issued its challenge, or another registration has used it")
    if registrar == GATEWAY:
        if not by_phone:
            raise OperatorError("its challenge is not for the telephone; an operator registers it")
        return
    operator, claims = _act_of(standing, row, body, "confirm", "registrar")
    _binds(
        operator, claims, "another registration", voice_id=row.subject, voice_hash=body["voice_hash"],
        record=body["record"], findings=body["findings"], checks=body["checks"], challenge=body["challenge"],
    )  # fmt: skip


def _heard(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "listen")
    _binds(operator, claims, "for another voice", voice_id=_voice(standing, row).voice_id)


def _reviewed(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "review")
    voice = _voice(standing, row)
    if voice.state != "pending":
        raise OperatorError(f"the voice waits for no review (it is {voice.state})")
    _binds(
        operator, claims, "the review of another registration", voice_id=voice.voice_id,
        record_hash=voice.record_hash, decision=body["decision"],
    )  # fmt: skip
    if body["decision"] not in ("approve", "reject"):
        raise OperatorError("a review approves or rejects")
    if str(claims.get("reason", ""))[:MAX_REASON] != body["reason"]:
        raise OperatorError(f"{operator.name} signed another reason")
    refuse_two_eyes(standing, voice, operator)
    if body["decision"] == "approve" and operator.name not in voice.heard:
        raise OperatorError(f"{operator.name} has not listened yet")


def _revoked(standing: Standing, row: Judged, body: Body) -> None:
    voice = _voice(standing, row)
    if body.get("act"):
        operator, claims = read_act(standing, body["act"], "revoke")
        _binds(operator, claims, "for another voice", voice_id=voice.voice_id)
        if body["by"] != f"operator {operator.name}":
            raise OperatorError(f"{operator.name} signed this act, and the row names {body['by']!r}")
    elif not str(body["by"]).startswith(OWNER) and (body["by"] != "office" or not standing.resumes):
        raise OperatorError(f"there is no act of {body['by']!r}")
    if voice.state == "erased":
        raise OperatorError("the voice was erased already")


def _erased(standing: Standing, row: Judged, body: Body) -> None:
    voice = _voice(standing, row)
    if body.get("act"):
        operator, claims = _act_of(standing, row, body, "erase", aged=False)
        _binds(operator, claims, "for another voice", voice_id=voice.voice_id)
    elif body["by"] == "schedule":
        old = row.at_ms - voice.submitted_ms > UNDECIDED_S * 1000
        if not old or voice.alone or voice.state not in ("pending", "rejected"):
            raise OperatorError("no schedule erases a voice that was decided on, or may still be")
    elif body["by"] != "office" or not standing.resumes:
        raise OperatorError(f"there is no act of {body['by']!r}")


def _blocked(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "block")
    _binds(operator, claims, "another label", label=body["label"])
    lift = row.kind == "speaker.unblocked"
    if standing.form >= FORM:
        _binds(operator, claims, "something else", lift=lift)
        if not lift:
            _binds(operator, claims, "for another recording", sample=body["sample"])
    if lift != (body["block"] in standing.blocked):
        raise OperatorError("the entry is on the list already, or is not on it")


def _key(standing: Standing, kid: str, public: str) -> None:
    if kid_of(read_public(public)) != kid:
        raise OperatorError("the key's name is not its own")
    if kid in standing.stolen:
        raise OperatorError(f"the key {kid} was revoked")


def _rotated(standing: Standing, row: Judged, body: Body) -> None:
    _key(standing, body["kid"], body["public"])
    if standing.form < FORM and not body.get("act"):
        return  # an older version finished a rotation that was cut short so
    operator, claims = _act_of(standing, row, body, "rotate")
    if standing.form >= FORM:
        _binds(
            operator, claims, "another rotation", which="signing", replaces=row.kid, kid=body["kid"],
            public=body["public"],
        )  # fmt: skip


def _master(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "rotate")
    if standing.form >= FORM:
        _binds(
            operator, claims, "another rotation", which="master", replaces=body["replaces"],
            kid=body["master"],
        )  # fmt: skip


def _key_revoked(standing: Standing, row: Judged, body: Body) -> None:
    kid = body["kid"]
    if kid not in standing.signers or kid in standing.stolen:
        raise OperatorError(f"the ledger knows no key {kid!r}, or it was revoked already")
    if kid == row.kid:
        raise OperatorError(f"the key {kid} is in force; rotate it first: voicegate voice rotate signing")
    operator, claims = _act_of(standing, row, body, "revoke-key")
    _binds(operator, claims, "another revocation", kid=kid, since_ms=body["since_ms"])


def _resumed(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "resume")
    if standing.form < FORM and "accepts" not in claims:
        return
    _key(standing, body["kid"], body["public"])
    if row.kid != body["kid"] or row.kid in body["stolen"]:
        raise OperatorError("it is signed with another key than it names, or with one that was revoked")
    _binds(
        operator, claims, "for another restore", accepts=row.prev, leaves=body["left"], kid=body["kid"],
        public=body["public"], stolen=body["stolen"],
    )  # fmt: skip
    if claims.get("given_up", []) != body.get("given_up", []):
        raise OperatorError(f"{operator.name} gave up other rows than these")


def _clock_set(standing: Standing, row: Judged, body: Body) -> None:
    operator, claims = _act_of(standing, row, body, "clock")
    _binds(operator, claims, "another time, or after another row", time_ms=row.at_ms, after=row.prev)


_RULES: Final[Mapping[str, Callable[[Standing, Judged, Body], None]]] = {
    "ledger.opened": _opened,
    "operator.added": _added,
    "operator.revoked": _removed,
    "challenge.issued": _challenged,
    "voice.submitted": _submitted,
    "voice.heard": _heard,
    "voice.reviewed": _reviewed,
    "voice.revoked": _revoked,
    "voice.erased": _erased,
    "speaker.blocked": _blocked,
    "speaker.unblocked": _blocked,
    "key.rotated": _rotated,
    "master.rotated": _master,
    "key.revoked": _key_revoked,
    "ledger.resumed": _resumed,
    "clock.set": _clock_set,
}
"""What each kind of row must have; rows of other kinds change nothing that an act would bind."""
