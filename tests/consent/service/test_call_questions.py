"""What the front and commands ask the office of calls: seals, statements, evidence; and its own looks."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from consent.data_dir import OFFICE_SOCKET
from consent.errors import LedgerError, OfficeAway
from consent.grants.grant import SPEECH_TYP, GrantVerifier
from consent.ledger.merkle import leaf_hash, tree_hash
from consent.ledger.timekeeper import Timekeeper
from consent.proof.call_seals import SEALED
from consent.service import asked_ledger, ledger_questions
from consent.service.asked_ledger import evidence_of, rows_of
from consent.service.front_office import FrontOffice
from consent.service.front_questions import LEAVES_BYTES, SealCalls, SignSpeechStatement
from consent.service.office_client import OfficeClient
from consent.service.office_rooms import OfficePlace
from gateway.store.call_leaves import BATCH, CallLeaves
from gateway.store.registry import CallRow, Registry
from tests.consent.service.served import serving
from tests.needs import HANGS_S
from watermark.keys import MarkKey
from watermark.payload import call_payload

KEY = MarkKey("wm-beef", 0xBEEF, bytes(32))


@pytest.fixture
def place(tmp_path: Path) -> OfficePlace:
    url = f"sqlite:///{tmp_path}/voicegate.db"
    return OfficePlace(url, tmp_path / "consent", tmp_path / "keys.json", tmp_path / "models")


@pytest.fixture
def front(place: OfficePlace) -> Iterator[FrontOffice]:
    path = place.consent_dir / OFFICE_SOCKET
    with serving(place, path), contextlib.closing(OfficeClient(path)) as client:
        yield FrontOffice(client, place.consent_dir / "grant-keys.json")


def test_calls_are_sealed_over_the_socket_as_many_as_a_batch_has(front: FrontOffice) -> None:
    leaves = [leaf_hash(str(number).encode()) for number in range(BATCH)]
    seq = front.seal_calls("b1", leaves)
    (row,) = rows_of(front.client, (SEALED,))
    assert (row.seq, row.table) == (seq, {"batch": "b1", "leaves": BATCH, "root": tree_hash(leaves)})


@pytest.mark.parametrize(
    ("batch", "leaves"),
    [
        ("a", []), ("", ["00" * 32]), ("a-b", ["00" * 32]), ("a", ["0"]), ("a", ["no hash"]),
        ("a", ["00" * 31, "00" * 33]),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_an_error_of_consent(front: FrontOffice, batch: str, leaves: list[str]) -> None:
    with pytest.raises(LedgerError, match="the calls' seal"):
        front.seal_calls(batch, leaves)
    with pytest.raises((LedgerError, OfficeAway)):
        front.client.ask(SealCalls(batch, b"x" * (len(leaves) * 31)))
    with pytest.raises(OfficeAway, match="larger"):
        front.client.ask(SealCalls(batch, bytes(LEAVES_BYTES + 1)))
    assert list(rows_of(front.client, (SEALED,))) == []


def test_another_user_than_the_gateways_seals_no_call_and_has_no_statement_signed(place: OfficePlace) -> None:
    path = place.consent_dir / OFFICE_SOCKET
    with serving(place, path, gateway=54_321), contextlib.closing(OfficeClient(path)) as client:
        for question in (SealCalls("a", bytes(32)), SignSpeechStatement({"jti": "c"})):
            with pytest.raises(OfficeAway, match="the gateway's user only"):
                client.ask(question)
        assert list(rows_of(client, (SEALED,))) == []


def test_a_statement_is_signed_by_a_key_that_the_public_file_has(front: FrontOffice, tmp_path: Path) -> None:
    away = FrontOffice(front.client, tmp_path / "gateway" / "grant-keys.json")
    token = away.sign_speech_statement({"jti": "c1", "synthetic": True})
    claims = GrantVerifier.load(away.public_keys_path).claims(token, SPEECH_TYP)
    assert (claims["jti"], claims["synthetic"]) == ("c1", True)


def test_rows_come_page_by_page_each_once_and_as_they_are(
    front: FrontOffice, place: OfficePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_ledger, "ROWS", 2)
    monkeypatch.setattr(ledger_questions, "ROWS", 2)
    for number in range(5):
        front.seal_calls(f"b{number}", [leaf_hash(b"x")])
    assert [row.table["batch"] for row in rows_of(front.client, (SEALED,))] == [f"b{n}" for n in range(5)]
    engine = create_engine(place.sql_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE consent_ledger SET body = '{}' WHERE kind = :k"), {"k": SEALED})
    engine.dispose()
    assert [row.edited for row in rows_of(front.client, (SEALED,))] == [True] * 5


def test_the_evidence_of_a_call_holds_over_the_socket_and_an_edited_row_breaks_it(
    front: FrontOffice, place: OfficePlace
) -> None:
    registry = Registry.open(place.sql_url)
    payload = call_payload(KEY, "c1")
    row = CallRow(
        call_id="c1", payload=payload & ((1 << 48) - 1), payload_whole=payload, route="demo", caller="x",
        called="y", source="z",
    )  # fmt: skip
    call = registry.enter(row).to_json()
    leaves = CallLeaves(registry)
    for batch, hashes in leaves.waiting():
        leaves.sealed(batch, front.seal_calls(batch, hashes))

    def registry_link(told: dict[str, object]) -> bool | None:
        evidence = evidence_of(front.client, told, keys=[KEY], calls=leaves)
        return next(link.holds for link in evidence.links if link.title == "Registry")

    assert registry_link(call) is True
    assert registry_link({**call, "caller": "eve"}) is False
    nothing = evidence_of(front.client, None, {"payload": "1"}, misnamed="c1")
    assert [(link.title, link.holds) for link in nothing.links] == [("Watermark", True), ("Call", False)]
    with pytest.raises(LedgerError, match="not a call's JSON"):
        evidence_of(front.client, {"call_id": "c1", "grants": 7})
    registry.close()


def test_a_look_of_the_office_that_fails_comes_back_and_ends_with_the_office(
    place: OfficePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    async def fails(_: Timekeeper) -> None:
        tries.append(time.monotonic())
        raise RecursionError("what nobody expects")

    monkeypatch.setattr(Timekeeper, "run", fails)
    with serving(place, place.consent_dir / OFFICE_SOCKET):
        until = time.monotonic() + HANGS_S
        while len(tries) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    count = len(tries)
    assert count >= 2
    assert not [thread for thread in threading.enumerate() if thread.name == "office.looks"]


def test_what_the_office_says_of_a_call_is_json_all_through(front: FrontOffice) -> None:
    call = {"call_id": "c1", "voice": "jane", "grant_jti": "x", "voice_hash": "y", "started_at": 1.5}
    evidence = evidence_of(front.client, call)
    assert not evidence.unbroken
    assert json.loads(json.dumps(evidence.to_json()))["links"][0]["title"] == "Call"
