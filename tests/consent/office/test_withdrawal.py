"""Taking a voice back: revoked, erased, deleted by schedule; the owner by telephone; backups."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from consent.errors import GrantRefused, OperatorError, PinRefused, RegistrationError, VaultError
from consent.grants.scope import Scope
from consent.ledger.timekeeper import Timekeeper
from consent.office import backup
from consent.office import pin as pins
from consent.office.office import ConsentOffice
from consent.office.owner import OwnerDesk
from consent.office.registration import VOICEPRINT_S
from consent.office.usage import spoken, uses
from consent.office.withdrawal import Withdrawals
from consent.statements.lexicon import LEXICA
from tests.consent.conftest import Desk, both_databases

PIN = "482913"


def withdrawals(desk: Desk) -> Withdrawals:
    return Withdrawals(desk.office.books, desk.office.vault)


def erase(desk: Desk, voice_id: str) -> None:
    act = desk.act("alice", "erase", voice_id=voice_id)
    withdrawals(desk).erase("jane", "asked", act)


def revoke(desk: Desk, voice_id: str) -> None:
    withdrawals(desk).revoke("jane", "asked", desk.act("alice", "revoke", voice_id=voice_id))


@both_databases
def test_an_erased_voice_is_gone_and_the_ledger_stays_provable(desk: Desk) -> None:
    done = desk.jane(pin=PIN)
    with desk.office.archive.reading() as connection:
        items = desk.office.vault.items(connection, done.voice_id)
    assert {item.kind for item in items} == {"record", "reference", "text", "statement", "voiceprint", "pin"}
    erase(desk, done.voice_id)
    with desk.office.archive.reading() as connection:
        assert desk.office.vault.items(connection, done.voice_id) == []
        with pytest.raises(VaultError, match="erased"):
            desk.office.vault.get(connection, done.voice_id, "reference")
    (receipt,) = desk.office.books.reader.rows(kinds=("voice.erased",))
    assert len(receipt.table["items"]) == len(items)
    assert {item["sealed_sha256"] for item in receipt.table["items"]} == {item.digest for item in items}
    assert desk.office.books.prove().ok


def test_of_an_erased_voice_the_database_file_keeps_no_byte(desk: Desk, tmp_path: Path) -> None:
    done = desk.jane()
    with desk.office.archive.reading() as connection:
        wrapped = connection.execute(
            text("SELECT wrapped_key FROM consent_voices WHERE voice_id = :v"), {"v": done.voice_id}
        ).scalar()
        sealed = connection.execute(
            text("SELECT sealed FROM consent_items WHERE voice_id = :v AND kind = 'text'"),
            {"v": done.voice_id},
        ).scalar()
    assert wrapped is not None
    assert sealed is not None
    path = tmp_path / "data" / "voicegate.db"

    def whole() -> bytes:
        with sqlite3.connect(path) as plain:
            plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()

    assert wrapped in whole()
    erase(desk, done.voice_id)
    assert wrapped not in whole()
    assert sealed not in whole()


def test_an_old_copy_of_the_database_opens_no_voice_after_the_masters_rotation(
    desk: Desk, tmp_path: Path
) -> None:
    """Crypto-shredding against backups: erase, then rotate the master; the old copy has lost its key."""
    done = desk.jane()
    with (
        sqlite3.connect(tmp_path / "data" / "voicegate.db") as plain,
        sqlite3.connect(tmp_path / "old.db") as old,
    ):
        plain.backup(old)
    old.close()
    erase(desk, done.voice_id)
    desk.rotate("master")
    copy = ConsentOffice.open(f"sqlite:///{tmp_path}/old.db", tmp_path / "data" / "consent")
    with copy.archive.reading() as connection, pytest.raises(VaultError, match="master key"):
        copy.vault.get(connection, done.voice_id, "reference")
    copy.close()


@both_databases
def test_voices_open_after_the_masters_rotation_here_and_in_other_processes(desk: Desk) -> None:
    desk.jane()
    other = desk.open_again()
    granted = desk.grant()
    assert desk.rotate("master") == 2
    for office in (desk.office, other):
        assert office.reference(granted.token, granted.voice_hash).pcm is not None  # type: ignore[attr-defined]
    assert len(desk.office.keys.masters) == 1
    other.close()


def test_voiceprints_are_deleted_on_schedule_with_a_receipt(desk: Desk) -> None:
    done = desk.jane()
    assert withdrawals(desk).tidy() == []
    desk.clock.now += VOICEPRINT_S + 1
    receipts = withdrawals(desk).tidy()
    assert [(receipt.voice_id, receipt.items) for receipt in receipts] == [(done.voice_id, 2)]
    with desk.office.archive.reading() as connection:
        kinds = {item.kind for item in desk.office.vault.items(connection, done.voice_id)}
    assert "voiceprint" not in kinds
    desk.grant()


def test_a_registration_nobody_decides_on_is_erased(needs_review: Desk) -> None:
    done = needs_review.submit()
    needs_review.clock.now += 31 * 86_400
    withdrawals(needs_review).tidy()
    assert needs_review.office.look().voices[done.voice_id].state == "erased"


def test_who_may_revoke_and_erase(desk: Desk) -> None:
    done = desk.jane()
    with pytest.raises(OperatorError, match="carol is auditor"):
        withdrawals(desk).revoke("jane", "x", desk.act("carol", "revoke", voice_id=done.voice_id))
    with pytest.raises(OperatorError, match="signed 'revoke', not 'erase'"):
        withdrawals(desk).erase("jane", "x", desk.act("alice", "revoke", voice_id=done.voice_id))
    with pytest.raises(RegistrationError, match="another voice"):
        withdrawals(desk).revoke("jane", "x", desk.act("alice", "revoke", voice_id="0" * 16))
    old = desk.act("alice", "revoke", voice_id=done.voice_id)
    desk.clock.now += 3600
    with pytest.raises(OperatorError, match="another time"):
        withdrawals(desk).revoke("jane", "x", old)
    revoke(desk, done.voice_id)
    with pytest.raises(RegistrationError, match="revoked already"):
        revoke(desk, done.voice_id)


# ── the owner ────────────────────────────────────────────────────────────────────────────────────────────


@both_databases
def test_the_owner_hears_of_the_usage_and_revokes_by_pin(desk: Desk) -> None:
    done = desk.jane(pin=PIN)
    granted = desk.grant()
    desk.office.record_usage(jti=granted.jti, call_id="c1", seconds=125.0, dialplan="demo")  # type: ignore[attr-defined]
    owner = OwnerDesk(desk.office).enter("jane", PIN, "owner-call")
    assert "one call, for 2 minutes" in owner.spoken()
    with pytest.raises(PinRefused):
        owner.revoke("000001")
    desk.grant()
    owner.revoke(PIN)
    with pytest.raises(GrantRefused) as caught:
        desk.grant()
    assert caught.value.reason == "revoked"
    (row,) = desk.office.books.reader.rows(kinds=("voice.revoked",))
    assert row.table["by"] == "owner by phone, call owner-call"
    assert row.subject == done.voice_id


def test_a_pin_is_tried_five_times_then_locked_then_longer(desk: Desk) -> None:
    desk.jane(pin=PIN)
    owners = OwnerDesk(desk.office)
    for _ in range(5):
        with pytest.raises(PinRefused, match="does not open"):
            owners.enter("jane", "111222", "c")
    with pytest.raises(PinRefused, match="too many") as caught:
        owners.enter("jane", PIN, "c")
    assert caught.value.locked_s == pytest.approx(900)
    assert desk.kinds()[-1] == "pin.locked"
    desk.clock.now += 901
    with pytest.raises(PinRefused):
        owners.enter("jane", "111222", "c")
    with pytest.raises(PinRefused) as caught:
        owners.enter("jane", PIN, "c")
    assert caught.value.locked_s == pytest.approx(1800)
    desk.clock.now += 1801
    assert owners.enter("jane", PIN, "c").handle == "jane"
    with pytest.raises(PinRefused, match="does not open"):
        owners.enter("jane", "111222", "c")  # the right one began the count anew


def test_many_calls_at_once_get_no_more_tries(desk: Desk) -> None:
    desk.jane(pin=PIN)
    answers: list[str] = []

    def guess(number: int) -> None:
        try:
            OwnerDesk(desk.office).enter("jane", f"{number:06d}", "c")
        except PinRefused as refusal:
            answers.append(str(refusal))

    threads = [threading.Thread(target=guess, args=(number + 100_000,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("does not open" in answer for answer in answers) == pins.TRIES
    assert sum("too many" in answer for answer in answers) == 12 - pins.TRIES


def test_a_stranger_learns_not_even_whether_there_is_a_voice(desk: Desk) -> None:
    desk.jane()  # without a PIN
    said = set()
    for handle in ("jane", "nobody"):
        with pytest.raises(PinRefused) as caught:
            OwnerDesk(desk.office).enter(handle, PIN, "c")
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize("pin", ["12345", "1" * 6, "123456", "987654", "12ab56", "", "1" * 13, "48291③"])
def test_a_pin_that_is_none_is_refused(desk: Desk, pin: str) -> None:
    with pytest.raises(RegistrationError, match="PIN"):
        desk.submit(pin=pin)


def test_the_usage_as_it_is_spoken(desk: Desk) -> None:
    done = desk.jane()
    assert "not used" in spoken(uses(desk.office.books, done.voice_id), desk.clock.now)
    for call in range(5):
        desk.clock.now += 3600
        granted = desk.grant(call_id=f"c{call}")
        desk.office.record_usage(jti=granted.jti, call_id=f"c{call}", seconds=10, dialplan="demo")  # type: ignore[attr-defined]
    said = spoken(uses(desk.office.books, done.voice_id), desk.clock.now)
    assert said.startswith("In the last thirty days your voice was used in 5 calls, for 50 seconds.")
    assert said.count("for support") == 3
    for language in (*LEXICA, "de-AT", "xx"):
        told = spoken(uses(desk.office.books, done.voice_id), desk.clock.now, language)
        assert "5" in told
        assert "{" not in told


# ── backups ──────────────────────────────────────────────────────────────────────────────────────────────

PASSPHRASE = b"correct horse battery"


@both_databases
def test_a_backup_restores_everything_on_another_machine(desk: Desk, tmp_path: Path) -> None:
    desk.jane()
    backup.write(desk.office, tmp_path / "b", PASSPHRASE)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    url, folder = f"sqlite:///{tmp_path}/new/voicegate.db", tmp_path / "new" / "consent"
    with pytest.raises(VaultError, match="passphrase is wrong"):
        backup.restore(tmp_path / "b", b"another passphrase", url, folder)
    backup.restore(tmp_path / "b", PASSPHRASE, url, folder)
    office = ConsentOffice.open(url, folder, clock=Timekeeper(desk.clock, boot=desk.clock))
    granted = office.grant(Scope("jane", "support", "d", "en", "c"))
    found = office.reference(granted.token, granted.voice_hash)
    assert isinstance(found.pcm, np.ndarray)
    assert office.books.prove().ok
    with pytest.raises(VaultError, match="consent in this database already"):
        backup.restore(tmp_path / "b", PASSPHRASE, url, folder)
    office.close()


def test_an_old_backup_brings_no_revoked_voice_back(desk: Desk, tmp_path: Path) -> None:
    done = desk.jane()
    backup.write(desk.office, tmp_path / "b", PASSPHRASE)
    revoke(desk, done.voice_id)
    desk.office.close()
    database = tmp_path / "data" / "voicegate.db"
    for side in ("", "-wal", "-shm"):
        Path(f"{database}{side}").unlink(missing_ok=True)
    backup.restore(tmp_path / "b", PASSPHRASE, f"sqlite:///{database}", tmp_path / "data" / "consent")
    office = desk.open_again()
    with pytest.raises(GrantRefused) as caught:
        office.grant(Scope("jane", "support", "d", "en", "c"))
    assert caught.value.reason == "ledger", "this host has seen more"
    with pytest.raises(OperatorError, match="alice is registrar"):
        desk.resume(office, "alice")
    assert desk.resume(office) == ["jane"]
    with pytest.raises(GrantRefused) as caught:
        office.grant(Scope("jane", "support", "d", "en", "c"))
    assert caught.value.reason == "revoked"
    assert office.books.prove().ok
    office.close()


def test_a_backup_from_before_a_rotation_opens_on_the_same_host(desk: Desk, tmp_path: Path) -> None:
    desk.jane()
    backup.write(desk.office, tmp_path / "b", PASSPHRASE)
    desk.rotate("signing")
    desk.rotate("master")
    desk.office.close()
    database = tmp_path / "data" / "voicegate.db"
    for side in ("", "-wal", "-shm"):
        Path(f"{database}{side}").unlink(missing_ok=True)
    backup.restore(tmp_path / "b", PASSPHRASE, f"sqlite:///{database}", tmp_path / "data" / "consent")
    office = desk.open_again()
    desk.resume(office)
    granted = office.grant(Scope("jane", "support", "d", "en", "c"))
    assert office.reference(granted.token, granted.voice_hash).pcm is not None
    assert office.books.prove().ok
    office.close()


def test_rotations_by_two_processes_lose_no_key(desk: Desk) -> None:
    """Both began with the same key file; each rotates without having seen the other."""
    desk.jane()
    granted = desk.grant()
    other = desk.open_again()
    other.keys.reload()
    for office in (desk.office, other, desk.office):
        desk.rotate("master", office=office)
        desk.rotate("signing", office=office)
    for office in (desk.office, other, desk.open_again()):
        assert office.reference(granted.token, granted.voice_hash).pcm is not None  # type: ignore[attr-defined]
        office.keys.reload()
        assert len(office.keys.signers) == 4
        assert office.books.prove().ok
    other.close()


def test_a_running_front_goes_on_when_an_auditor_has_resumed(desk: Desk, tmp_path: Path) -> None:
    """Rows are lost under a running process: it grants nothing, until somebody else's process resumes."""
    desk.jane()
    other = desk.open_again()
    desk.grant()
    desk.grant()
    with desk.office.archive.writing() as connection:
        connection.execute(text("DELETE FROM consent_ledger WHERE seq = :s"), {"s": desk.office.books.tip[0]})
    for _ in range(2):
        with pytest.raises(GrantRefused) as caught:
            desk.grant()
        assert caught.value.reason == "ledger"
    desk.resume(other)
    desk.grant()
    assert desk.office.books.prove().ok
    other.close()


def test_a_backup_wants_a_real_passphrase_and_overwrites_nothing(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="at least 12"):
        backup.write(desk.office, tmp_path / "b", b"short")
    backup.write(desk.office, tmp_path / "b", PASSPHRASE)
    with pytest.raises(VaultError, match="overwrites nothing"):
        backup.write(desk.office, tmp_path / "b", PASSPHRASE)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(VaultError, match="not a backup"):
        backup.restore(tmp_path / "junk", PASSPHRASE, "sqlite:////tmp/x.db", tmp_path / "k")
