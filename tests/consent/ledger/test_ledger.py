"""The ledger on SQLite and on a real PostgreSQL: what was written is proved, what was changed is named."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert, text

from consent.archive.keys import OfficeKeys, SigningKey
from consent.archive.tables import LEDGER, Archive
from consent.errors import LedgerError
from consent.grants.grant import GrantVerifier
from consent.ledger.books import Books
from consent.ledger.chain import GENESIS, HEAD_TYP, Head, Row, head_of, row_hash, verify
from tests.consent.conftest import Desk, both_databases


@pytest.fixture
def books(tmp_path: Path, sql_url: str) -> Books:
    opened = Books(Archive.open(sql_url), OfficeKeys.open(tmp_path / "data" / "consent"))
    opened.begin()
    write(opened, 9)
    opened.save_checkpoint()  # as an office does when it closes
    return opened


def write(books: Books, count: int, kind: str = "voice.used") -> None:
    for number in range(count):
        with books.writing() as writing:
            writing.append(kind, "v1", {"number": number, "who": "Žofie", "seconds": 1.5})


def tamper(sql_url: str, *statements: str) -> None:
    """Somebody with the database's password."""
    url = sql_url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@both_databases
def test_what_was_written_verifies(books: Books) -> None:
    proof = books.prove()
    assert (proof.ok, proof.rows, proof.bad) == (True, 10, None)
    assert proof.head is not None
    assert proof.head.hash == books.tip[1]


@both_databases
def test_an_edited_row_is_named(books: Books, sql_url: str) -> None:
    tamper(sql_url, "UPDATE consent_ledger SET body = replace(body, '1.5', '0.5') WHERE seq = 4")
    proof = books.prove()
    assert (proof.bad, proof.fault) == (4, "it was edited")


@both_databases
@pytest.mark.parametrize("column", ["at_ms = at_ms + 1", "kind = 'voice.granted'", "subject = 'v2'"])
def test_no_field_of_a_row_can_be_edited(books: Books, sql_url: str, column: str) -> None:
    tamper(sql_url, f"UPDATE consent_ledger SET {column} WHERE seq = 7")
    assert books.prove().bad == 7


@both_databases
def test_a_removed_row_is_named(books: Books, sql_url: str) -> None:
    tamper(sql_url, "DELETE FROM consent_ledger WHERE seq = 5")
    assert books.prove().bad == 6


@both_databases
def test_reordered_rows_are_named(books: Books, sql_url: str) -> None:
    tamper(
        sql_url,
        "UPDATE consent_ledger SET seq = 1000 WHERE seq = 3",
        "UPDATE consent_ledger SET seq = 3 WHERE seq = 4",
        "UPDATE consent_ledger SET seq = 4 WHERE seq = 1000",
    )
    assert books.prove().bad == 3


@both_databases
def test_a_ledger_that_was_cut_back_is_named_by_this_hosts_head(books: Books, sql_url: str) -> None:
    tamper(sql_url, "DELETE FROM consent_ledger WHERE seq > 8")
    proof = books.prove()
    assert proof.bad == 9
    assert "row 10" in proof.fault


def test_a_ledger_that_was_cut_back_is_named_by_an_exported_head(books: Books, sql_url: str) -> None:
    token = books.head()
    head = head_of(GrantVerifier(books.keys.public).claims(token, HEAD_TYP))
    tamper(sql_url, "DELETE FROM consent_ledger WHERE seq > 3")
    assert books.prove(heads=[]).ok, "without a head nobody can tell"
    assert books.prove(heads=[head]).bad == 4


@both_databases
def test_rows_hashed_anew_after_an_edit_are_named_by_their_signature(books: Books, sql_url: str) -> None:
    """Somebody who can write SQL, and knows how rows are hashed, but has not the key."""
    rows = books.reader.rows()
    prev = rows[3].prev
    statements = []
    for row in rows[3:]:
        body = row.body.replace("1.5", "0.5") if row.seq == 4 else row.body
        digest = row_hash(row.seq, row.at_ms, row.kind, row.subject, body, prev)
        statements.append(
            f"UPDATE consent_ledger SET body = '{body}', prev = '{prev}', hash = '{digest}' "
            f"WHERE seq = {row.seq}"
        )
        prev = digest
    tamper(sql_url, *(statement.replace(":", "\\:") for statement in statements))
    proof = books.prove(heads=[])
    assert proof.bad == 4
    assert "signature" in proof.fault


def test_a_head_by_another_key_is_none(books: Books) -> None:
    other = {"x": SigningKey.make().private.public_key()}
    assert books.prove(keys=other).bad == 1


@both_databases
def test_writers_of_several_processes_make_one_chain(tmp_path: Path, sql_url: str, books: Books) -> None:
    others = [Books(Archive.open(sql_url), OfficeKeys.open(tmp_path / "data" / "consent")) for _ in range(3)]
    threads = [threading.Thread(target=write, args=(other, 8)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proof = books.prove()
    assert (proof.ok, proof.rows) == (True, 10 + 24)


def test_a_host_that_saw_more_refuses_a_shorter_ledger(books: Books, tmp_path: Path, sql_url: str) -> None:
    tamper(sql_url, "DELETE FROM consent_ledger WHERE seq > 8")
    again = Books(Archive.open(sql_url), OfficeKeys.open(tmp_path / "data" / "consent"))
    with pytest.raises(LedgerError, match="cut back"):
        again.begin()


def test_a_host_refuses_a_ledger_in_which_the_row_it_saw_was_replaced(
    books: Books, tmp_path: Path, sql_url: str
) -> None:
    tamper(sql_url, f"UPDATE consent_ledger SET hash = '{'a' * 64}' WHERE seq = 10")
    again = Books(Archive.open(sql_url), OfficeKeys.open(tmp_path / "data" / "consent"))
    with pytest.raises(LedgerError, match="replaced"):
        again.begin()


def test_a_forged_row_at_the_end_is_refused(books: Books, sql_url: str) -> None:
    stranger = SigningKey.make()
    seq, digest, at_ms = books.tip
    row = Row.make(seq + 1, at_ms, "voice.revoked", "v1", {"reason": "x"}, digest, stranger)
    with books.archive.writing() as connection:
        connection.execute(insert(LEDGER).values(row.to_json()))

    with pytest.raises(LedgerError, match="signature fails"):
        books.look()


def test_a_forged_checkpoint_is_refused(books: Books, tmp_path: Path, sql_url: str) -> None:
    path = tmp_path / "data" / "consent" / "ledger-head"
    token = path.read_text()
    path.write_text(token[:40] + ("A" if token[40] != "A" else "B") + token[41:])
    with pytest.raises(LedgerError, match="not signed by this office"):
        Books(Archive.open(sql_url), OfficeKeys.open(tmp_path / "data" / "consent"))


@both_databases
def test_the_ledger_outlives_a_change_of_keys(desk: Desk) -> None:
    before = dict(desk.office.keys.public)
    desk.rotate("signing")
    desk.jane()
    assert desk.office.books.prove().ok
    assert desk.office.books.prove(keys=before).ok, "the old public key vouches for the new one"
    again = desk.open_again()
    assert again.look().voices
    again.close()


def test_after_a_rotation_cut_short_the_old_key_signs_on(desk: Desk) -> None:
    old = desk.office.keys.signer.kid
    desk.office.keys.add_signer(SigningKey.make())  # and killed here, before its row
    again = desk.open_again()
    assert set(again.look().signers) == {again.keys.signer.kid} == {old}, "no act put another in force"
    assert again.books.prove().ok
    new = desk.rotate("signing", office=again)
    assert again.look().signers.keys() == {old, new}
    assert again.keys.signer.kid == new
    again.close()


SIGNER = SigningKey.make()
KEYS = {SIGNER.kid: SIGNER.private.public_key()}

bodies = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=8)), max_size=3)


def chain(contents: list[dict[str, object]]) -> list[Row]:
    rows: list[Row] = []
    for number, body in enumerate(contents, start=1):
        prev = rows[-1].hash if rows else GENESIS
        rows.append(Row.make(number, 1000 + number, "voice.used", "v", body, prev, SIGNER))
    return rows


@settings(max_examples=60)
@given(st.lists(bodies, min_size=1, max_size=12), st.data())
def test_any_change_of_a_chain_is_found(contents: list[dict[str, object]], data: st.DataObject) -> None:
    rows = chain(contents)
    head = Head(rows[-1].seq, rows[-1].hash, rows[-1].at_ms)
    assert verify(iter(rows), KEYS, [head]).ok
    at = data.draw(st.integers(0, len(rows) - 1))
    how = data.draw(st.sampled_from(["remove", "repeat", "edit", "swap", "resign"]))
    changed = list(rows)
    if how == "remove":
        del changed[at]
    elif how == "repeat":
        changed.insert(at, rows[at])
    elif how == "swap":
        other = data.draw(st.integers(0, len(rows) - 1))
        changed[at], changed[other] = changed[other], changed[at]
        if other == at:
            return
    elif how == "resign":
        stranger = SigningKey.make()
        last = rows[at]
        changed[at] = Row.make(last.seq, last.at_ms, last.kind, "v", {"new": 1}, last.prev, stranger)
    else:
        field = data.draw(st.sampled_from(["body", "kind", "subject", "at_ms"]))
        value = {"body": '{"x":"y"}', "kind": "voice.revoked", "subject": "w", "at_ms": 1}[field]
        changed[at] = Row(**{**rows[at].to_json(), field: value})
    proof = verify(iter(changed), KEYS, [head])
    assert not proof.ok
    assert proof.bad is not None
    assert proof.bad >= 1
