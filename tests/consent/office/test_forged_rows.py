"""Attacks by somebody who holds the office's key, or a thief of it, on a real office and its database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from consent.archive.keys import SigningKey
from consent.errors import ChallengeError, ConsentError, GrantRefused, LedgerError, OperatorError
from consent.grants.grant import GrantVerifier, VoiceGrant, read_public_keys, sign, unb64
from consent.grants.revocation import TYP as REVOCATION_TYP
from consent.grants.revocation import RevocationList
from consent.grants.scope import Scope
from consent.ledger.chain import HEAD_TYP, Row, put
from consent.ledger.host_checkpoint import CHECKPOINT, CHECKPOINT_TYP
from consent.ledger.operators import OperatorKey
from consent.ledger.standing import Standing
from consent.ledger.timekeeper import Timekeeper
from consent.office import record as records
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Record
from consent.office.rotation import Rotation
from consent.office.withdrawal import Withdrawals
from consent.proof import bundle
from tests.consent.conftest import Clock, Desk
from tests.consent.proof.gathered import evidence_by


def forge(
    office: ConsentOffice, kind: str, subject: str | None, body: dict[str, Any], key: SigningKey | None = None
) -> Row:
    """A row that the office never wrote, signed with its key (or `key`)."""
    office.books.look()
    seq, prev, at_ms = office.books.tip
    at_ms = max(at_ms, round(office.clock() * 1000))
    row = Row.make(seq + 1, at_ms, kind, subject, body, prev, key or office.keys.signer)
    with office.archive.writing() as connection:
        put(connection, row)
    return row


def consent_dir(desk: Desk) -> Path:
    return desk.office.keys.directory


def without_memory(desk: Desk) -> ConsentOffice:
    """Another process, on a host that has never seen this ledger."""
    (consent_dir(desk) / CHECKPOINT).unlink(missing_ok=True)
    return desk.open_again()


def refused(office: ConsentOffice, handle: str = "jane") -> str:
    with pytest.raises(GrantRefused) as caught:
        office.grant(Scope(handle, "support", "demo", "en", "c1"))
    return caught.value.reason


def void_everywhere(desk: Desk, row: Row, reason: str = "pending") -> None:
    """Not granted here, nor by a fresh process, and named by `ledger verify`."""
    assert refused(desk.office) == reason
    fresh = without_memory(desk)
    assert refused(fresh) == reason
    proof = fresh.books.prove()
    assert (proof.bad, "void" in proof.fault) == (row.seq, True)
    fresh.close()


@pytest.fixture
def pending(desk: Desk) -> str:
    return desk.submit().voice_id


# ── four eyes (F5) ───────────────────────────────────────────────────────────────────────────────────────


def test_a_registrar_alone_with_the_offices_key_and_checks_of_their_own_puts_no_voice_in_force(
    desk: Desk,
) -> None:
    done = desk.submit()
    assert {finding.verdict for finding in done.findings} == {"passed"}, "alice's own checks pass everything"
    assert refused(desk.office) == "pending"
    with pytest.raises(OperatorError, match="another operator reviews"):
        desk.review("alice")
    standing = desk.office.standing_of("jane")
    assert standing is not None
    about = {"voice_id": done.voice_id, "record_hash": standing.record_hash, "decision": "approve"}
    act = desk.act("alice", "review", **about)
    row = forge(
        desk.office, "voice.reviewed", done.voice_id, {**about, "reason": "", "by": "alice", "act": act}
    )
    void_everywhere(desk, row)


@pytest.mark.parametrize("act", ["forged", "", None])
def test_a_review_that_nobody_signed_puts_no_voice_in_force(
    desk: Desk, pending: str, act: str | None
) -> None:
    desk.listen("bob")
    body = {"decision": "approve", "reason": "", "by": "bob", "act": act}
    row = forge(desk.office, "voice.reviewed", pending, body)
    void_everywhere(desk, row)
    evidence = evidence_by(
        desk.office, {"call_id": "c1", "voice": "jane", "grant_jti": "x", "voice_hash": "y"}
    )
    assert not evidence.unbroken
    made = json.loads(bundle.dump(bundle.export(desk.office, desk.office.standing_of("jane"))))  # type: ignore[arg-type]
    found = bundle.verify(made, desk.office.keys.public)
    assert (found.state, found.reviews) == ("pending", ())
    assert str(row.seq) in found.void[0]


def test_a_founder_written_later_is_no_operator(desk: Desk, pending: str) -> None:
    mallory = desk.keys["mallory"] = OperatorKey.make("mallory")
    body = {"name": "mallory", "role": "reviewer", "public": mallory.public, "added_by": "", "act": ""}
    row = forge(desk.office, "operator.added", None, body)
    assert "mallory" not in desk.office.look().operators
    with pytest.raises(OperatorError, match="no operator is called 'mallory'"):
        desk.listen("mallory")
    void_everywhere(desk, row)


def test_a_forged_checkpoint_puts_no_voice_in_force(desk: Desk, pending: str) -> None:
    """Whoever has the office's key can sign what this host remembers; the rows' acts count."""
    books = desk.office.books
    standing = Standing.from_json(books.standing.to_json())
    standing.voices[pending].state, standing.voices[pending].active_ms = "active", 1
    standing.voices[pending].approvals.append("bob")
    seq, digest, at_ms = books.tip
    claims = {"seq": seq, "hash": digest, "at_ms": at_ms, "iat": 0, "form": 2, "standing": standing.to_json()}
    signer = desk.office.keys.signer
    path = consent_dir(desk) / CHECKPOINT
    path.write_text(sign(claims, signer.private, signer.kid, CHECKPOINT_TYP))
    fooled = desk.open_again()
    assert fooled.look().voices[pending].state == "active", "the forgery was read"
    assert refused(fooled) == "tampered"
    fooled.archive.close()


def test_a_finding_cannot_be_changed_with_the_offices_key(desk: Desk) -> None:
    """Alice registers what the checks held for review; somebody makes it passed in record and row."""
    desk.checks.classifier = None
    done = desk.submit()
    standing = desk.office.standing_of("jane")
    assert standing is not None
    record = desk.office.records.open(standing)
    claims = json.loads(json.dumps(record.claims))
    for check in claims["checks"]:
        check["verdict"] = "passed"
    signer = desk.office.keys.signer
    forged = Record.read(
        records.seal(claims, claims["registrar_confirm"], signer), GrantVerifier(desk.office.keys.ever)
    )
    with pytest.raises(ConsentError, match="signed other findings"):
        forged.check_acts(standing, desk.office.look().operators)
    (honest,) = [row for row in desk.office.books.reader.rows() if row.kind == "voice.submitted"]
    for change in (
        {"checks": {name: "passed" for name in honest.table["checks"]}},
        {"findings": records.digest(claims["checks"])},
        {"record": records.digest_of(forged.claims)},
        {"voice_hash": "0" * 64},
    ):
        act = {**honest.table, **change}
        row = forge(desk.office, "voice.submitted", "e" * 16, act)
        assert "e" * 16 not in desk.office.look().voices, change
        assert desk.office.books.prove().bad == honest.seq + 1 <= row.seq
    assert done.voice_id in desk.office.look().voices


def test_a_forged_revocation_silences_and_is_named(desk: Desk) -> None:
    done = desk.jane()
    row = forge(
        desk.office, "voice.revoked", done.voice_id, {"by": "operator alice", "act": "x", "reason": ""}
    )
    void_everywhere(desk, row, "revoked")


# ── acts are good once (F12) ─────────────────────────────────────────────────────────────────────────────


def test_one_act_rotates_one_key_once(desk: Desk) -> None:
    first, second = (Rotation(desk.office.books, desk.office.vault) for _ in range(2))
    about = first.next_signing()
    act = desk.act("alice", "rotate", **about)
    second.next_signing()
    second.next_master()
    with pytest.raises(OperatorError, match="another rotation"):
        second.master(desk.act("alice", "rotate", **about))
    first.signing(act)
    with pytest.raises(OperatorError, match="handed in before"):
        second.signing(act)
    with pytest.raises(OperatorError, match="next signing key"):
        first.signing(desk.act("alice", "rotate", **about))
    assert [row.kind for row in desk.office.books.reader.rows()].count("key.rotated") == 1
    assert desk.office.books.prove().ok


def test_an_act_to_listen_that_stands_in_the_ledger_takes_no_sound_out_again(
    desk: Desk, pending: str
) -> None:
    desk.listen("bob")
    (row,) = desk.office.books.reader.rows(kinds=("voice.heard",))
    other, fresh = desk.open_again(), without_memory(desk)
    for office in (desk.office, other, fresh):
        with pytest.raises(OperatorError, match="handed in before"):
            office.reviews.listen("jane", row.table["act"])
    assert desk.kinds().count("voice.heard") == 1
    other.close()
    fresh.close()


def test_an_act_that_was_refused_is_spent_all_the_same(desk: Desk, pending: str) -> None:
    standing = desk.office.standing_of("jane")
    assert standing is not None
    act = desk.act(
        "bob", "review", voice_id=pending, record_hash=standing.record_hash, decision="approve", reason=""
    )
    with pytest.raises(OperatorError, match="has not listened yet"):
        desk.office.reviews.review("jane", act)
    desk.listen("bob")
    fresh = without_memory(desk)
    with pytest.raises(OperatorError, match="handed in before"):
        fresh.reviews.review("jane", act)
    fresh.close()


def test_an_act_for_another_office_does_nothing_here(desk: Desk, tmp_path: Path) -> None:
    """The same operator, with the same key, at two offices."""
    other = ConsentOffice.open(f"sqlite:///{tmp_path}/other.db", tmp_path / "other", clock=desk.clock)
    OperatorDesk(other.books).add("bob", "reviewer", desk.keys["bob"].public, None)
    assert other.identity != desk.office.identity
    desk.jane()
    standing = desk.office.standing_of("jane")
    assert standing is not None
    act = desk.keys["bob"].act("revoke", desk.clock.now, other.identity, voice_id=standing.voice_id)
    with pytest.raises(OperatorError, match="for another office"):
        Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    desk.grant()
    other.close()


def test_ids_of_acts_are_forgotten_once_no_act_can_be_so_old(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consent.ledger.rulings.IDS_KEPT", 2)
    desk.jane()
    assert len(desk.office.look().spent) >= 5, "however few are kept, none that could come again is forgotten"
    desk.clock.now += 3600
    desk.challenge()
    assert len(desk.office.look().spent) == 2


# ── a stolen signing key ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def stolen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> tuple[SigningKey, GrantVerifier]:
    """Jane in force under a key that a thief has; a running verifier, as halls and engines have one."""
    monkeypatch.setattr("consent.grants.grant.REREAD_S", 0.0)
    desk.jane()
    thief = desk.office.keys.signer
    running = GrantVerifier.load(desk.office.public_keys_path)
    return thief, running


def revoke_key(desk: Desk, kid: str, who: str = "alice", office: ConsentOffice | None = None) -> None:
    chosen = office or desk.office
    since = desk.clock.now - 3600
    act = desk.act(who, "revoke-key", kid=kid, since_ms=round(since * 1000))
    Rotation(chosen.books, chosen.vault).revoke(kid, since, "a laptop was stolen", act)


def test_nothing_that_a_stolen_key_signs_counts_once_it_is_revoked(
    desk: Desk, stolen: tuple[SigningKey, GrantVerifier], tmp_path: Path
) -> None:
    thief, running = stolen
    granted = desk.grant()
    assert isinstance(granted, VoiceGrant)
    head = desk.office.books.head()
    challenge = desk.challenge()
    other = desk.open_again()
    with pytest.raises(OperatorError, match="in force; rotate it first"):
        revoke_key(desk, thief.kid)
    desk.rotate("signing")
    running.verify(granted.token, now=desk.clock.now)
    revoke_key(desk, thief.kid)

    with pytest.raises(GrantRefused, match="was revoked") as caught:
        running.verify(granted.token, now=desk.clock.now)
    assert caught.value.reason == "unknown_key"
    for office in (desk.office, other, desk.open_again()):
        office.look()
        with pytest.raises(GrantRefused):
            office.verifier.verify(granted.token, now=desk.clock.now)
        with pytest.raises(GrantRefused):
            office.verifier.claims(head, HEAD_TYP)
        renewed = office.renew(granted)
        assert running.verify(renewed.token, now=desk.clock.now).jti == granted.jti
    with pytest.raises(ChallengeError, match="issue a new one"):
        desk.submit(desk.submission(challenge, handle="joe"))
    claims = {"sub": "jane", "vh": granted.voice_hash, "iat": desk.clock.now}
    told = RevocationList(running)
    assert told.take(sign(claims, thief.private, thief.kid, REVOCATION_TYP)) is None
    assert told.forged == 1
    keys, revoked = (read_public_keys(desk.office.public_keys_path, revoked=gone) for gone in (False, True))
    assert (thief.kid in keys, list(revoked)) == (False, [thief.kid])
    assert thief.kid not in json.dumps(
        json.loads((consent_dir(desk) / "office-keys.json").read_text())["signing"]
    )

    desk.grant()  # the record is the thief's key's, and the ledger named its hash before
    assert desk.office.books.prove().ok
    assert desk.office.books.prove(keys={**keys, **revoked}, revoked=revoked).ok
    standing = desk.office.standing_of("jane")
    assert standing is not None
    made = json.loads(bundle.dump(bundle.export(desk.office, standing)))
    assert bundle.verify(made, keys, revoked).state == "active"
    other.close()


def test_a_row_signed_with_a_revoked_key_is_refused(
    desk: Desk, stolen: tuple[SigningKey, GrantVerifier]
) -> None:
    thief, _ = stolen
    desk.rotate("signing")
    revoke_key(desk, thief.kid)
    other = desk.open_again()
    row = forge(desk.office, "voice.used", "x", {"jti": "1"}, thief)
    for office in (desk.office, other):
        with pytest.raises(LedgerError, match="revoked before it"):
            office.look()
        assert refused(office) == "ledger"
    proof = desk.office.books.prove()
    assert (proof.bad, "was revoked before it" in proof.fault) == (row.seq, True)
    other.archive.close()


def test_a_thief_puts_no_key_of_theirs_in_force(desk: Desk, stolen: tuple[SigningKey, GrantVerifier]) -> None:
    thief, _ = stolen
    fresh = SigningKey.make()
    body = {**desk.office.books.introduction(fresh), "by": "alice", "act": ""}
    forge(desk.office, "key.rotated", None, body, thief)
    desk.office.look()
    forge(desk.office, "voice.used", "x", {"jti": "1"}, fresh)
    with pytest.raises(LedgerError, match="signature fails"):
        desk.office.look()


def test_a_database_from_before_the_revocation_is_not_believed(
    desk: Desk, stolen: tuple[SigningKey, GrantVerifier]
) -> None:
    """A thief who can write SQL cuts the ledger back; this host's key file knows what was revoked."""
    thief, _ = stolen
    before = desk.office.books.tip[0]
    desk.rotate("signing")
    revoke_key(desk, thief.kid)
    with desk.office.archive.writing() as connection:
        connection.execute(text("DELETE FROM consent_ledger WHERE seq > :s"), {"s": before})
    fresh = without_memory(desk)
    assert refused(fresh) == "ledger"
    with pytest.raises(LedgerError, match="was revoked, and the ledger does not say so"):
        fresh.look()
    assert "by which the key" in fresh.books.prove(heads=[]).fault
    desk.resume(fresh)
    fresh.grant(Scope("jane", "support", "demo", "en", "c1"))
    assert fresh.books.prove().ok
    assert set(fresh.look().stolen) == {thief.kid}
    fresh.close()


def test_a_host_without_the_new_key_grants_nothing_and_says_what_to_copy(
    desk: Desk, stolen: tuple[SigningKey, GrantVerifier], tmp_path: Path, sql_url: str
) -> None:
    thief, _ = stolen
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "office-keys.json").write_text((consent_dir(desk) / "office-keys.json").read_text())
    (folder / "office-keys.json").chmod(0o600)
    second = ConsentOffice.open(sql_url, folder, clock=desk.clock)
    second.grant(Scope("jane", "support", "demo", "en", "c1"))
    desk.rotate("signing")
    revoke_key(desk, thief.kid, "bob")
    with pytest.raises(GrantRefused, match=r"copy office-keys\.json"):
        second.grant(Scope("jane", "support", "demo", "en", "c1"))
    assert thief.kid in json.loads((folder / "grant-keys.json").read_text())["revoked"]
    (folder / "office-keys.json").write_text((consent_dir(desk) / "office-keys.json").read_text())
    second.keys.reload()
    second.grant(Scope("jane", "support", "demo", "en", "c1"))
    second.archive.close()


# ── ledgers of older versions ────────────────────────────────────────────────────────────────────────────

OLD = Path(__file__).parent.parent / "ledger" / "old_ledger.json"


def old_office(tmp_path: Path, *, head: bool) -> ConsentOffice:
    """The ledger that commit acbef43 wrote, with its records, on a host that kept its head or did not."""
    table = json.loads(OLD.read_text())
    folder = tmp_path / "old" / "consent"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "office-keys.json").write_text(json.dumps(table["keys"]))
    (folder / "office-keys.json").chmod(0o600)
    if head:
        (folder / CHECKPOINT).write_text(table["head"])
    url = f"sqlite:///{tmp_path}/old/voicegate.db"
    first = ConsentOffice.open(url, tmp_path / "empty")  # for the tables alone
    with first.archive.writing() as connection:
        connection.execute(text("DELETE FROM consent_ledger"))
        for row in table["rows"]:
            put(connection, Row(**row))
    first.archive.close()
    clock = Clock(1_800_000_200.0)
    office = ConsentOffice.open(url, folder, clock=Timekeeper(clock, boot=clock))
    with office.archive.writing() as connection:
        for name, voice_id in table["voices"].items():
            office.vault.open_voice(connection, voice_id, name, clock.now)
            office.vault.put(connection, voice_id, "record", table["records"][name].encode())
            for kind in ("statement", "reference"):
                office.vault.put(connection, voice_id, kind, bytes(2))
    return office


def wall(office: ConsentOffice) -> Clock:
    """The clock of an `old_office`, which a test sets."""
    clock = office.clock._wall
    assert isinstance(clock, Clock)
    return clock


def old_desk(office: ConsentOffice) -> Desk:
    """With the operators whom the older version knew."""
    table, clock = json.loads(OLD.read_text()), wall(office)
    keys = {
        name: OperatorKey(name, Ed25519PrivateKey.from_private_bytes(unb64(raw)))
        for name, raw in table["operators"].items()
    }
    return Desk(office, clock, keys, lambda: office)


@pytest.mark.parametrize("head", [True, False])
def test_an_honest_ledger_of_an_older_version_loads(tmp_path: Path, head: bool) -> None:
    office = old_office(tmp_path, head=head)
    assert office.books.prove().ok
    standing = office.look()
    assert standing.form == 2
    assert sorted(voice.state for voice in standing.voices.values()) == ["active", "erased", "pending"]
    granted = office.grant(Scope("jane", "support", "demo", "en", "c1"))
    assert granted.voice == "jane"
    with pytest.raises(GrantRefused, match=r"in force by checks alone.*voice review joe") as caught:
        office.grant(Scope("joe", "support", "demo", "en", "c1"))
    assert caught.value.reason == "pending"
    assert old_desk(office).review("bob", handle="joe") == "active"
    assert office.grant(Scope("joe", "support", "demo", "en", "c1")).voice == "joe"
    assert office.books.prove().ok
    office.close()


def test_what_an_older_version_put_in_force_is_not_erased_for_want_of_a_review(tmp_path: Path) -> None:
    office = old_office(tmp_path, head=True)
    clock = wall(office)
    clock.now += 60 * 86_400
    Withdrawals(office.books, office.vault).tidy()
    assert sorted(voice.state for voice in office.look().voices.values()) == ["active", "erased", "pending"]
    office.close()


def test_an_older_versions_head_still_tells_of_a_ledger_that_was_cut_back(tmp_path: Path) -> None:
    office = old_office(tmp_path, head=True)
    table = json.loads(OLD.read_text())
    with office.archive.writing() as connection:
        connection.execute(text("DELETE FROM consent_ledger WHERE seq > 9"))
    office.archive.close()
    (office.keys.directory / CHECKPOINT).write_text(table["head"])
    clock = Clock(1_800_000_300.0)
    again = ConsentOffice.open(
        f"sqlite:///{tmp_path}/old/voicegate.db", office.keys.directory, clock=Timekeeper(clock, boot=clock)
    )
    with pytest.raises(LedgerError, match="cut back"):
        again.look()
    assert old_desk(again).resume(again) == [], "what was revoked after the backup is not in it at all"
    assert again.look().form == 2
    assert again.books.prove().ok
    again.grant(Scope("jane", "support", "demo", "en", "c1"))
    again.close()


def test_acts_of_the_older_form_are_not_taken_any_more(tmp_path: Path) -> None:
    """An act that names no office may be another office's."""
    office = old_office(tmp_path, head=False)
    table = json.loads(OLD.read_text())
    heard = next(row for row in table["rows"] if row["kind"] == "voice.heard")
    row = forge(office, "voice.heard", heard["subject"], json.loads(heard["body"]))
    assert office.look().voices[heard["subject"]].heard == ["bob"]
    assert office.books.prove().bad == row.seq
    office.close()
