"""Every kind of row that an operator's act binds, written with the office's own key and without a good act.

The attacker here may do all that the office may, but has no operator's key that fits. Each row is void: it
changes nothing at load, and a verification names it. Rows that take a voice back silence it all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from consent.archive.keys import MasterKey, SigningKey
from consent.ledger.chain import Row, verify
from consent.ledger.operators import OperatorKey
from consent.ledger.rulings import TAKING, replay, take
from consent.ledger.standing import Standing
from consent.office.blocklist import Blocklist
from consent.office.record import Reference
from consent.statements.challenge import Challenge
from tests.consent.conftest import Desk, PlannedSpeaker, prompt


@dataclass
class World:
    """A ledger with jane (in force), joe (pending, heard by bob), an unused challenge, a blocked speaker."""

    desk: Desk
    jane: str
    joe: str
    challenge: Challenge
    old_kid: str

    def __post_init__(self) -> None:
        self.rows = self.desk.office.books.reader.rows()
        self.keys = dict(self.desk.keys)
        self.now = self.desk.clock.now
        self.office = self.rows[0].hash

    @property
    def standing(self) -> Standing:
        standing, void = replay(self.rows)
        assert void == {}
        return standing

    def row(self, kind: str, subject: str | None, body: dict[str, Any], after: list[Row]) -> Row:
        """The next row, signed by the office's key in force, whatever it says."""
        last = after[-1]
        signer = self.desk.office.keys.signer
        return Row.make(last.seq + 1, last.at_ms, kind, subject, body, last.hash, signer)


@pytest.fixture
def world(desk: Desk) -> World:
    office = desk.office
    old = office.keys.signer.kid
    desk.rotate("signing")
    jane = desk.jane().voice_id
    joe = desk.submit(
        handle="joe", statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),)
    ).voice_id
    desk.listen("bob", "joe")
    sample = prompt("conf-usermenu")
    act = desk.act("bob", "block", label="mayor", lift=False, sample=sample.sha256)
    Blocklist(office.books, office.vault).add("mayor", sample, PlannedSpeaker(), act)
    return World(desk, jane, joe, desk.challenge(), old)


@dataclass
class Honest:
    """A row as an honest office would write it: by whose act, and what that act binds."""

    who: str
    what: str
    subject: str | None
    about: dict[str, Any]
    body: dict[str, Any]
    by: str = "by"
    names: str = "{}"
    """how the row names who signed"""


def challenge_issued(world: World) -> Honest:
    about = {"terms": "a" * 64, "by_phone": False}
    return Honest("alice", "challenge", None, about, {**about, "challenge": "1234567890"})


def voice_submitted(world: World) -> Honest:
    bound = {
        "voice_id": "f" * 16, "voice_hash": "b" * 64, "record": "c" * 64, "findings": "d" * 64,
        "checks": {"copies": "passed"}, "challenge": world.challenge.challenge_id,
    }  # fmt: skip
    body = {**bound, "record_hash": "e" * 64, "outcome": "passed", "statement": "1"}
    return Honest("alice", "confirm", "f" * 16, bound, body, by="registrar")


def voice_heard(world: World) -> Honest:
    return Honest("rosa", "listen", world.joe, {"voice_id": world.joe}, {})


def voice_reviewed(world: World) -> Honest:
    about = {
        "voice_id": world.joe, "record_hash": world.standing.voices[world.joe].record_hash,
        "decision": "approve", "reason": "it is joe",
    }  # fmt: skip
    return Honest("bob", "review", world.joe, about, {"decision": "approve", "reason": "it is joe"})


def voice_revoked(world: World) -> Honest:
    body = {"reason": "asked", "voice_hash": "0" * 64}
    return Honest("alice", "revoke", world.jane, {"voice_id": world.jane}, body, names="operator {}")


def voice_erased(world: World) -> Honest:
    body = {"reason": "asked", "items": [], "record_hash": "0" * 64}
    return Honest("alice", "erase", world.jane, {"voice_id": world.jane}, body)


def speaker_blocked(world: World) -> Honest:
    about = {"label": "judge", "sample": "a" * 64}
    return Honest("bob", "block", None, {**about, "lift": False}, {**about, "block": "b" * 12})


def speaker_unblocked(world: World) -> Honest:
    (block,) = world.standing.blocked
    return Honest("bob", "block", None, {"label": "mayor", "lift": True}, {"label": "mayor", "block": block})


def operator_added(world: World) -> Honest:
    about = {"name": "dave", "role": "reviewer", "public": OperatorKey.make("dave").public}
    return Honest("bob", "operator", None, about, dict(about), by="added_by")


def operator_revoked(world: World) -> Honest:
    return Honest(
        "bob", "operator", None, {"name": "rosa", "role": "revoked"}, {"name": "rosa", "reason": ""}
    )


def key_rotated(world: World) -> Honest:
    fresh = world.desk.office.books.introduction(SigningKey.make())
    replaces = world.desk.office.keys.signer.kid
    return Honest("alice", "rotate", None, {"which": "signing", "replaces": replaces, **fresh}, dict(fresh))


def master_rotated(world: World) -> Honest:
    old, new = world.desk.office.keys.master.kid, MasterKey.make().kid
    about = {"which": "master", "replaces": old, "kid": new}
    return Honest("alice", "rotate", None, about, {"master": new, "replaces": old, "voices": 3})


def key_revoked(world: World) -> Honest:
    about = {"kid": world.old_kid, "since_ms": 1_799_000_000_000}
    return Honest("bob", "revoke-key", None, about, {**about, "reason": "a laptop was stolen"})


def ledger_resumed(world: World) -> Honest:
    key = world.desk.office.books.introduction(world.desk.office.keys.signer)
    about = {"accepts": world.rows[-1].hash, "leaves": "a" * 64, "stolen": {}, **key}
    return Honest("carol", "resume", None, about, {"left": "a" * 64, "stolen": {}, "reason": "disk", **key})


KINDS: dict[str, Callable[[World], Honest]] = {
    "challenge.issued": challenge_issued, "voice.submitted": voice_submitted, "voice.heard": voice_heard,
    "voice.reviewed": voice_reviewed, "voice.revoked": voice_revoked, "voice.erased": voice_erased,
    "speaker.blocked": speaker_blocked, "speaker.unblocked": speaker_unblocked,
    "operator.added": operator_added, "operator.revoked": operator_revoked, "key.rotated": key_rotated,
    "master.rotated": master_rotated, "key.revoked": key_revoked, "ledger.resumed": ledger_resumed,
}  # fmt: skip
AGELESS = {"voice.revoked", "voice.erased", "operator.revoked"}
"""What only takes away counts however long its act was on its way."""
LATER = 24 * 3600.0


def attacks(kind: str, honest: Honest, world: World) -> dict[str, tuple[dict[str, Any], list[Row]]]:
    """Bodies that an attacker may write for this row, and the ledger to write each after."""
    key = world.keys[honest.who]

    def signed(by: OperatorKey | None = None, what: str = honest.what, **changed: Any) -> str:
        office, now = changed.pop("office", world.office), changed.pop("now", world.now)
        return (by or key).act(what, now, office, **{**honest.about, **changed})

    def body(act: object, names: str = honest.who) -> dict[str, Any]:
        return {**honest.body, honest.by: honest.names.format(names), "act": act}

    def without(who: str) -> list[Row]:
        other = "alice" if who == "bob" else "bob"
        act = world.keys[other].act("operator", world.now, world.office, name=who, role="revoked")
        gone = {"name": who, "by": other, "reason": "", "act": act}
        return [*world.rows, world.row("operator.revoked", None, gone, world.rows)]

    good = signed()
    found: dict[str, tuple[dict[str, Any], list[Row]]] = {
        "no act": (body(""), world.rows),
        "no act at all": ({k: v for k, v in body("").items() if k != "act"}, world.rows),
        "junk for an act": (body("forged"), world.rows),
        "a number for an act": (body(7), world.rows),
        "an act whose signature was changed": (body(good[:-6] + "AAAAAA"), world.rows),
        "a stranger's act under the name": (body(signed(OperatorKey.make(honest.who))), world.rows),
        "another's name in the row": (body(good, "rosa" if honest.who != "rosa" else "bob"), world.rows),
        "an act of another sort": (
            body(signed(what="listen" if honest.what != "listen" else "erase")),
            world.rows,
        ),
        "an act for another office": (body(signed(office="f" * 64)), world.rows),
        "an act that names no office": (body(signed(office=None)), world.rows),
        "an act by a revoked operator": (body(good), without(honest.who)),
    }
    stranger = OperatorKey.make("mallory")
    found["an act by nobody the ledger knows"] = (body(signed(stranger), "mallory"), world.rows)
    wrong = "bob" if honest.what == "resume" else "carol"
    if honest.what != "listen":  # any operator may
        found["an act by a wrong role"] = (body(signed(world.keys[wrong]), wrong), world.rows)
    if kind not in AGELESS:
        found["an act of yesterday"] = (body(signed(now=world.now - LATER)), world.rows)
        found["an act of tomorrow"] = (body(signed(now=world.now + LATER)), world.rows)
        found["an act without a time"] = (body(signed(now=float("nan"))), world.rows)
    for name, value in honest.about.items():
        other = not value if isinstance(value, bool) else {"x": 1} if isinstance(value, dict) else f"{value}0"
        found[f"an act that binds another {name}"] = (body(signed(**{name: other})), world.rows)
        less = {key: kept for key, kept in honest.about.items() if key != name}
        if kind != "voice.reviewed" or name != "reason":
            act = key.act(honest.what, world.now, world.office, **less)
            found[f"an act that binds no {name}"] = (body(act), world.rows)
    first = world.row(kind, honest.subject, body(good), world.rows)
    found["an act that was taken before"] = (body(good), [*world.rows, first])
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_row_without_a_good_act_is_void_whoever_signed_it(world: World, kind: str) -> None:
    honest = KINDS[kind](world)
    keys = world.desk.office.keys.ever
    act = world.keys[honest.who].act(honest.what, world.now, world.office, **honest.about)
    good = {**honest.body, honest.by: honest.names.format(honest.who), "act": act}
    row = world.row(kind, honest.subject, good, world.rows)
    assert take(world.standing, row) is None, "the honest row counts"
    assert verify(iter([*world.rows, row]), keys, []).ok

    tried = attacks(kind, honest, world)
    assert len(tried) >= 13
    for name, (body, rows) in tried.items():
        standing, void = replay(rows)
        assert void == {}, name
        before = copy.deepcopy(standing.to_json())
        row = world.row(kind, honest.subject, body, rows)
        assert take(standing, row) is not None, f"{kind} with {name} counts"
        after = standing.to_json()
        if kind in TAKING:
            assert standing.voices[world.jane].state in ("revoked", "erased"), "taken back all the same"
            before["voices"].pop(world.jane)
            after["voices"].pop(world.jane)
        assert after == before, f"{kind} with {name} changed something"
        proof = verify(iter([*rows, row]), keys, [])
        assert proof.bad == row.seq, f"{kind} with {name} is not named: {proof}"
        assert "void" in proof.fault


NONSENSE: list[tuple[str, dict[str, Any]]] = [
    ("operator.added", {"name": "x", "role": "king", "public": "AA", "added_by": "", "act": ""}),
    ("operator.added", {"name": "x"}),
    ("key.rotated", {"kid": "x"}),
    ("key.revoked", {}),
    ("voice.reviewed", {"decision": "approve"}),
    ("voice.revoked", {"by": "office", "act": "", "reason": "there was no restore"}),
    ("voice.revoked", {"by": "operator alice", "act": "", "reason": ""}),
    ("voice.erased", {"by": "schedule", "act": "", "reason": "not undecided, nor old"}),
    ("voice.erased", {"by": "office", "act": "", "reason": "there was no restore"}),
    ("voice.submitted", {"registrar": "gateway", "challenge": "no such", "outcome": "passed"}),
    ("ledger.opened", {"kid": "x", "public": "AA"}),
    ("ledger.resumed", {"by": "office", "act": ""}),
    ("act.refused", {"jti": 1, "iat": "x"}),
    ("ledger.acts", {"acts": "many"}),
]


def test_a_row_that_makes_no_sense_breaks_no_ledger(world: World) -> None:
    """It is named, it gives nothing, and the ledger goes on behind it."""
    keys, was = world.desk.office.keys.ever, world.standing
    for kind, body in NONSENSE:
        for about in (world.jane, None, "nobody"):
            standing = world.standing
            row = world.row(kind, about, body, world.rows)
            assert take(standing, row) is not None, (kind, body)
            assert (standing.operators, standing.signers) == (was.operators, was.signers)
            assert [voice.state for voice in standing.voices.values()].count("active") <= 1
            assert verify(iter([*world.rows, row]), keys, []).bad == row.seq


def test_what_only_takes_away_needs_no_act(world: World) -> None:
    standing = world.standing
    by_phone = {"by": "owner by phone, call c1", "act": "", "reason": "by its owner", "voice_hash": "0"}
    assert take(standing, world.row("voice.revoked", world.jane, by_phone, world.rows)) is None
    last = world.rows[-1]
    late = Row.make(
        last.seq + 1, last.at_ms + 31 * 86_400_000, "voice.erased", world.joe,
        {"by": "schedule", "act": "", "reason": "pending for too long"}, last.hash,
        world.desk.office.keys.signer,
    )  # fmt: skip
    assert take(standing, late) is None
    assert {voice.state for voice in standing.voices.values()} == {"revoked", "erased"}


def test_four_eyes_are_judged_at_load(world: World) -> None:
    """Acts that are good by themselves, and that no office would have taken."""
    desk = world.desk
    record_hash = world.standing.voices[world.joe].record_hash

    def review(who: str) -> str | None:
        about = {"voice_id": world.joe, "record_hash": record_hash, "decision": "approve"}
        act = desk.act(who, "review", **about)
        body = {"decision": "approve", "reason": "", "by": who, "act": act}
        return take(world.standing, world.row("voice.reviewed", world.joe, body, world.rows))

    assert "alice registered this voice" in str(review("alice"))
    assert "rosa has not listened yet" in str(review("rosa"))
    assert "carol is auditor" in str(review("carol"))
    assert review("bob") is None
    puppet = OperatorKey.make("puppet")
    desk.keys["puppet"] = puppet
    about = {"name": "puppet", "role": "reviewer", "public": puppet.public}
    act = desk.act("alice", "operator", **about)
    row = world.row("operator.added", None, {**about, "added_by": "alice", "act": act}, world.rows)
    world.rows = [*world.rows, row]
    act = desk.act("puppet", "listen", voice_id=world.joe)
    world.rows = [*world.rows, world.row("voice.heard", world.joe, {"by": "puppet", "act": act}, world.rows)]
    assert "made operators by one founder, alice" in str(review("puppet"))


def test_a_founder_counts_only_before_there_are_voices_and_others(world: World) -> None:
    mallory = {"name": "mallory", "role": "reviewer", "public": OperatorKey.make("mallory").public}
    row = world.row("operator.added", None, {**mallory, "added_by": "", "act": ""}, world.rows)
    standing = world.standing
    assert "an operator adds others" in str(take(standing, row))
    assert "mallory" not in standing.operators
