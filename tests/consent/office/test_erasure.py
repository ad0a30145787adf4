"""What is left of an erased voice: every byte of the data directory is looked at."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from consent.archive.file_search import in_writing, search_files
from consent.archive.vault import HOUSE
from consent.checks.sound import Floats, pcm16
from consent.commands.voice_commands import receipt_lines
from consent.errors import ChallengeError
from consent.office.withdrawal import Receipt, Withdrawals
from tests.consent.conftest import Desk, PlannedSpeaker, both_databases, prompt

PIN = "482913"
NAME = "Jane Doe"


class OneSpeaker(PlannedSpeaker):
    """Double: everybody is one person, whose voiceprint is like no other bytes."""

    def windows(self, speech_16k: Floats) -> Floats:
        vector = np.random.default_rng(1).standard_normal(256).astype(np.float32)
        return np.tile(vector / np.linalg.norm(vector), (8, 1))


@pytest.fixture(autouse=True)
def one_speaker(desk: Desk) -> None:
    desk.checks.speaker = OneSpeaker()


@contextlib.contextmanager
def running_gateway(desk: Desk) -> Iterator[None]:
    """Another process with the database open: while it has it, SQLite keeps the write-ahead log."""
    other = desk.open_again()
    other.voices()
    yield
    other.close()


def secrets_of(desk: Desk, voice_id: str) -> dict[str, list[bytes]]:
    """Name, key, embeddings and sound of a voice, open and sealed, as bytes to look for."""
    office = desk.office
    with office.archive.reading() as connection:
        key = office.vault.wrapped_key(connection, voice_id)
        prints = office.vault.all(connection, voice_id, "voiceprint").values()
        sealed = [
            bytes(row)
            for row in connection.execute(
                text("SELECT sealed FROM consent_items WHERE voice_id = :v"), {"v": voice_id}
            ).scalars()
        ]
    assert key is not None
    assert len(list(prints)) == 2
    sounds = [pcm16(prompt(name).pcm) for name in ("demo-congrats", "basic-pbx-ivr-main")]
    return {
        "name": in_writing(NAME),
        "key": [key],
        "embedding": [vector[at : at + 64] for vector in prints for at in (0, 512)],
        "sound": [sound[at : at + 64] for sound in sounds for at in range(20_000, 60_000, 4_000)],
        "sealed": [item[at : at + 32] for item in sealed for at in range(0, len(item) - 32, 1_000)],
        "pin": [PIN.encode()],
    }


def erase(desk: Desk, voice_id: str, folder: Path | None = None) -> Receipt:
    act = desk.act("alice", "erase", voice_id=voice_id)
    return Withdrawals(desk.office.books, desk.office.vault).erase("jane", "asked", act, folder)


def left(folder: Path, sought: dict[str, list[bytes]]) -> dict[str, tuple[str, ...]]:
    return {place.path: place.left for place in search_files(folder, sought) if place.left or place.unread}


def test_no_byte_of_an_erased_voice_is_left_while_the_gateway_runs(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_gateway(desk):
        done = desk.jane(pin=PIN)
        desk.challenge()  # a second one that nobody reads aloud: it holds the name
        sought = secrets_of(desk, done.voice_id)
        before = left(data, sought)
        # the search can find: challenge and keys are there. Which of them the log still has, and which only
        # the file, goes by how many pages SQLite keeps
        assert {"name", "sealed"} <= set(before["voicegate.db-wal"])
        assert {"name", "key", "sealed"} <= {*before["voicegate.db"], *before["voicegate.db-wal"]}
        receipt = erase(desk, done.voice_id)
        assert receipt.shredded
        assert left(data, sought) == {}
    assert left(data, sought) == {}


def test_many_voices_keys_are_gone_from_the_log_once_they_are_erased(desk: Desk, tmp_path: Path) -> None:
    """The attack: the wrapped keys of 31 of 40 erased voices lay in the log, with the master beside it."""
    office = desk.office
    with running_gateway(desk):
        with office.archive.writing() as connection:
            for number in range(40):
                office.vault.open_voice(connection, f"v{number}", f"v{number}", 0.0)
        with office.archive.reading() as connection:
            keys = [office.vault.wrapped_key(connection, f"v{number}") for number in range(40)]
        assert None not in keys
        with office.archive.writing() as connection:
            for number in range(40):
                office.vault.erase(connection, f"v{number}")
        sought = {"keys": [key for key in keys if key is not None]}
        assert left(tmp_path / "data", sought)  # that is what was there
        assert office.archive.shred()
        assert left(tmp_path / "data", sought) == {}


def test_old_masters_wrappings_leave_the_log_with_the_rotation(desk: Desk, tmp_path: Path) -> None:
    done = desk.jane()
    with running_gateway(desk):
        with desk.office.archive.reading() as connection:
            key = desk.office.vault.wrapped_key(connection, done.voice_id)
        assert key is not None
        desk.rotate("master")
        assert left(tmp_path / "data", {"key": [key]}) == {}


def test_a_reader_that_holds_the_log_is_told_of_and_the_next_tidying_cuts_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consent.archive.tables.SHRED_TRIES", 2)
    monkeypatch.setattr("consent.archive.tables.SHRED_WAIT_MS", 10)
    done = desk.jane()
    sought = secrets_of(desk, done.voice_id)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "voicegate.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM consent_ledger").fetchone()
        receipt = erase(desk, done.voice_id)
        assert not receipt.shredded
        assert any("the database's log" in line for line in receipt_lines(receipt, "jane", tmp_path))
        assert left(tmp_path / "data", sought)
    Withdrawals(desk.office.books, desk.office.vault).tidy()
    assert left(tmp_path / "data", sought) == {}


def test_the_receipt_names_what_is_left_and_where_it_was_looked_for(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = desk.jane(pin=PIN)
    (data / "voicegate.log").write_text('{"event": "call.offered", "display": "Jane Doe", "voice": "jane"}\n')
    receipt = erase(desk, done.voice_id, data)
    told = "\n".join(receipt_lines(receipt, "jane", data))
    assert "voicegate.log: left: the voice's short name, the person's name" in told
    assert "voicegate.db: left: the voice's short name" in told
    assert f"of {len([path for path in data.rglob('*') if path.is_file()])} files below" in told
    assert "2 fingerprints of its recordings, until 2032-" in told
    assert receipt.fingerprints == 2
    (row,) = desk.office.books.reader.rows(kinds=("voice.erased",))
    assert len(row.table["fingerprints_kept"]) == 2
    with desk.office.archive.reading() as connection:
        kept = desk.office.vault.all(connection, HOUSE, "fingerprint")
    assert set(row.table["fingerprints_kept"]) <= set(kept)


@both_databases
def test_unused_challenges_of_the_person_go_with_the_voice_and_others_stay(desk: Desk) -> None:
    done = desk.jane()
    hers = desk.challenge()
    others = desk.challenge(type(desk.TERMS)(**{**vars_of(desk), "name": "John Roe"}))
    receipt = erase(desk, done.voice_id)
    assert receipt.challenges == 1
    office = desk.office
    with pytest.raises(ChallengeError, match="no challenge"):
        desk.submit(desk.submission(challenge=hers))
    with office.archive.reading() as connection:
        names = list(connection.execute(text("SELECT challenge_id FROM consent_challenges")).scalars())
    assert others.challenge_id in names
    assert hers.challenge_id not in names


def vars_of(desk: Desk) -> dict[str, object]:
    return {name: getattr(desk.TERMS, name) for name in desk.TERMS.__dataclass_fields__}


def test_a_challenge_that_is_over_keeps_no_name(desk: Desk, tmp_path: Path) -> None:
    challenge = desk.challenge()
    desk.clock.now += 31 * 60
    Withdrawals(desk.office.books, desk.office.vault).tidy()
    assert left(tmp_path / "data", {"name": in_writing(NAME)}) == {}
    with pytest.raises(ChallengeError, match="expired"):
        desk.submit(desk.submission(challenge=challenge))


@both_databases
def test_a_database_is_cleaned_of_what_was_deleted(desk: Desk) -> None:
    desk.jane()
    assert desk.office.archive.shred()
