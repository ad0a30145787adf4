"""The registry's rows sealed into the ledger, and somebody who can write SQL beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from consent.ledger.call_leaf import ENDED, LATER, LATER_NAMED, SEAL_WITHIN_S, call_leaf
from consent.ledger.chain import Row
from consent.proof.call_seals import SEALED, SealOfCall, check_calls, seal_of
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.front.house.registry_seal import RegistrySeal
from gateway.store.call_leaves import BATCH, CallLeaves
from gateway.store.call_tables import CALLS, LEAVES
from gateway.store.registry import CallRow, Registry
from tests.consent.conftest import Desk, both_databases, desk, sql_url  # noqa: F401  # fixtures of theirs


@dataclass
class Sealing:
    """A registry, and the office that seals it."""

    desk: Desk
    registry: Registry

    def enter(self, call_id: str, **given: object) -> CallRow:
        self.desk.clock.now += 1
        number = int(call_id, 16)
        values = {
            "call_id": call_id, "payload": number, "payload_whole": (0xBEEF << 48) | number,
            "gateway": "wm-beef", "dialplan": "demo.toml:3", "route": "demo", "caller": "sip:bob@192.0.2.1",
            "called": "sip:demo@192.0.2.2", "source": "192.0.2.1", "grant_jti": "jti", "voice": "jane",
            "voice_hash": "ab" * 32, "started_at": self.desk.clock.now + 0.123456,
        }  # fmt: skip
        return self.registry.enter(CallRow(**{**values, **given}))  # type: ignore[arg-type]

    def end(self, call_id: str) -> None:
        self.desk.clock.now += 1
        self.registry.close_call(call_id, "bye", self.desk.clock.now + 0.654321)

    def seal(self) -> int:
        return RegistrySeal(self.registry, self.desk.office).seal_now()

    def seals(self) -> int:
        return self.desk.kinds().count("registry.sealed")

    def sql(self, statement: str, **given: object) -> None:
        with self.registry.writing() as connection:
            connection.execute(text(statement), given)

    def sealed(self) -> list[Row]:
        return self.desk.office.books.reader.rows(kinds=(SEALED,), proved=True)

    def faults(self) -> list[str]:
        return check_calls(self.sealed(), CallLeaves(self.registry))

    def of(self, call_id: str) -> SealOfCall:
        row = self.registry.get(call_id)
        assert row is not None
        leaves = CallLeaves(self.registry)
        return seal_of(self.sealed(), leaves, row.to_json(), self.desk.clock.now)


@pytest.fixture
def sealing(desk: Desk, sql_url: str) -> Iterator[Sealing]:  # noqa: F811  # the fixtures
    registry = Registry.open(sql_url)
    yield Sealing(desk, registry)
    registry.close()


@both_databases
def test_a_calls_beginning_and_end_are_sealed(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.enter(
        "a2", caller="sip:jürgen\U0001f600@x", grant_jti=None, voice=None, payload_whole=(1 << 64) - 1
    )
    assert sealing.of("a1").holds
    assert "not sealed yet" in sealing.of("a1").says
    assert sealing.seal() == 2
    sealing.end("a1")
    assert sealing.seal() == 1
    for call_id in ("a1", "a2"):
        found = sealing.of(call_id)
        assert (found.holds, "unchanged" in found.says) == (True, True)
    assert list(sealing.of("a1").facts) == ["sealed when it entered", "sealed when it ended"]
    assert sealing.faults() == []
    assert sealing.desk.office.books.prove().ok


def test_an_idle_house_writes_no_row(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.seal()
    rows = len(sealing.desk.kinds())
    assert [sealing.seal() for _ in range(3)] == [0, 0, 0]
    assert len(sealing.desk.kinds()) == rows


def test_more_than_fits_one_seal_takes_several(sealing: Sealing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.call_leaves.BATCH", 3)
    for number in range(7):
        sealing.enter(f"a{number}")
    assert sealing.seal() == 7
    assert sealing.seals() == 3
    assert sealing.faults() == []
    assert BATCH > 1000


EDITS = {
    "payload": "7", "payload_whole": "7", "gateway": "'wm-0000'", "dialplan": "'x'", "route": "'ads'",
    "grant_jti": "NULL", "voice": "'heart'", "voice_hash": "'00'", "caller": "'sip:eve@x'",
    "called": "'sip:x@x'", "source": "'x'", "started_at": "'2026-01-01 00:00:00.000000'",
    "ended_at": "'2027-02-01 00:00:00.000000'", "how": "'failed'", "plan": "'0123456789ac'",
    "sip_call_id": "'x@y'", "sounded": "1.5",
}  # fmt: skip


@both_databases
@pytest.mark.parametrize("column", EDITS)
def test_an_edited_row_is_told(sealing: Sealing, column: str) -> None:
    sealing.enter("a1")
    sealing.end("a1")
    sealing.enter("a2")
    sealing.seal()
    sealing.sql(f"UPDATE calls SET {column} = {EDITS[column]} WHERE call_id = 'a1'")
    assert sealing.of("a1").holds is False
    assert "changed" in sealing.of("a1").says
    assert sealing.of("a2").holds
    assert any("a1" in fault for fault in sealing.faults())


def test_every_column_of_a_call_is_covered() -> None:
    assert set(EDITS) | {"call_id"} == {column.name for column in CALLS.columns}
    assert set(ENDED) | set(LATER) | set(LATER_NAMED) == {column.name for column in CALLS.columns}


@both_databases
@pytest.mark.parametrize("edit", ["NULL", "'another'"])
def test_a_plan_that_was_kept_is_covered(sealing: Sealing, edit: str) -> None:
    sealing.enter("a1", plan="0123456789ab")
    sealing.end("a1")
    sealing.seal()
    assert sealing.of("a1").holds
    sealing.sql(f"UPDATE calls SET plan = {edit} WHERE call_id = 'a1'")
    assert sealing.of("a1").holds is False


def test_a_row_without_a_plan_has_the_leaf_that_it_had_before_plans_were_kept() -> None:
    call = {"call_id": "a1", "payload": 1, "started_at": 1.0}
    assert call_leaf(call, "entered") == call_leaf({**call, "plan": None}, "entered")
    assert call_leaf(call, "entered") != call_leaf({**call, "plan": "0123456789ab"}, "entered")


def test_what_later_versions_keep_is_covered_under_its_name_and_the_sound_at_the_end_alone() -> None:
    call = {"call_id": "a1", "payload": 1, "started_at": 1.0}
    assert call_leaf({**call, "plan": "x"}, "ended") != call_leaf({**call, "sip_call_id": "x"}, "ended")
    assert call_leaf({**call, "sounded": 4.1}, "entered") == call_leaf(call, "entered")
    assert call_leaf({**call, "sounded": 4.1}, "ended") != call_leaf(call, "ended")


WAYS = {
    "the row": ("DELETE FROM calls WHERE call_id = 'a1'",),
    "row and leaves": (
        "DELETE FROM calls WHERE call_id = 'a1'",
        "DELETE FROM call_leaves WHERE call_id = 'a1'",
    ),
    "a leaf": ("DELETE FROM call_leaves WHERE call_id = 'a1'",),
    "the whole minute": ("DELETE FROM calls", "DELETE FROM call_leaves"),
    "an order": (
        "UPDATE call_leaves SET leaf_id = -leaf_id WHERE leaf_id IN (SELECT max(leaf_id) FROM call_leaves)",
    ),
    "a batch's name": ("UPDATE call_leaves SET batch = 'feed'",),
    "an unsealed leaf": ("UPDATE call_leaves SET batch = NULL WHERE call_id = 'a1'",),
    "an id": (
        "UPDATE calls SET call_id = 'ff' WHERE call_id = 'a1'",
        "UPDATE call_leaves SET call_id = 'ff' WHERE call_id = 'a1'",
    ),
    "a row put in": (
        "INSERT INTO calls (call_id, payload, gateway, dialplan, route, caller, called, source, started_at) "
        "VALUES ('ee', 9, '', '', '', '', '', '', '2029-01-01 00:00:00.000000')",
    ),
}


@both_databases
@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_taken_away_or_put_in_is_told(sealing: Sealing, way: str) -> None:
    for call_id in ("a1", "a2", "a3"):
        sealing.enter(call_id)
    sealing.seal()
    assert sealing.faults() == []
    for statement in WAYS[way]:
        sealing.sql(statement)
    assert sealing.faults()
    sealing.seal()
    assert sealing.faults(), "and the next seal makes it no better"


def test_a_row_edited_with_a_leaf_of_its_own_is_told(sealing: Sealing) -> None:
    """The gateway itself would seal the forged leaf in the next minute."""
    sealing.enter("a1")
    sealing.seal()
    sealing.sql("UPDATE calls SET caller = 'sip:eve@x'")
    row = sealing.registry.get("a1")
    assert row is not None
    forged = call_leaf(row.to_json(), "entered")
    for statement in (
        "UPDATE call_leaves SET leaf = :leaf, batch = NULL, seal = NULL",
        "INSERT INTO call_leaves (call_id, stage, leaf) VALUES ('a1', 'entered', :leaf)",
    ):
        sealing.sql(statement, leaf=forged)
        sealing.seal()
        assert sealing.of("a1").holds is False
        assert sealing.faults()


@both_databases
@pytest.mark.parametrize("way", ["edited", "deleted"])
def test_a_row_edited_with_its_leaf_before_their_first_seal_is_told(sealing: Sealing, way: str) -> None:
    """The process that entered the call still knows what it entered."""
    sealing.enter("a1")
    sealing.sql("UPDATE calls SET caller = 'sip:eve@x'")
    row = sealing.registry.get("a1")
    assert row is not None
    if way == "edited":
        sealing.sql("UPDATE call_leaves SET leaf = :leaf", leaf=call_leaf(row.to_json(), "entered"))
    else:
        sealing.sql("DELETE FROM call_leaves")
    sealing.seal()
    assert sealing.of("a1").holds is False
    assert sealing.faults()
    assert not sealing.registry.fresh_leaves


def test_an_end_that_is_taken_back_and_made_anew_is_told(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.end("a1")
    sealing.seal()
    sealing.sql("UPDATE calls SET ended_at = NULL, how = NULL")
    assert sealing.of("a1").holds is False
    assert sealing.faults() == ["the row of call a1 has lost its end"]
    sealing.end("a1")
    sealing.seal()
    assert sealing.of("a1").holds is False


def test_facts_taken_while_the_call_ran_are_proved_when_it_is_over(sealing: Sealing) -> None:
    early = sealing.enter("a1").to_json()
    sealing.end("a1")
    sealing.seal()
    leaves = CallLeaves(sealing.registry)
    assert seal_of(sealing.sealed(), leaves, early, sealing.desk.clock.now).holds
    forged = {**early, "caller": "sip:eve@x"}
    assert seal_of(sealing.sealed(), leaves, forged, sealing.desk.clock.now).holds is False


def test_what_waits_too_long_is_not_vouched_for(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.desk.clock.now += SEAL_WITHIN_S + 1
    found = sealing.of("a1")
    assert found.holds is None
    assert "has not sealed it" in found.says
    sealing.seal()
    assert sealing.of("a1").holds


def test_a_call_from_before_sealing_is_said_to_be_so(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.sql("DELETE FROM call_leaves")  # as an older version entered it
    sealing.registry.fresh_leaves.clear()
    assert sealing.of("a1").holds is None
    assert "before sealing began" in sealing.of("a1").says
    sealing.enter("a2")
    sealing.seal()
    assert "before sealing began" in sealing.of("a1").says
    assert sealing.faults() == []
    sealing.end("a1")
    sealing.seal()
    assert sealing.of("a1").holds, "its end covers all of the row"


def test_a_call_that_says_it_is_from_before_is_found_out(sealing: Sealing) -> None:
    sealing.enter("a1")
    sealing.seal()
    sealing.sql("UPDATE calls SET caller = 'sip:eve@x', started_at = '2020-01-01 00:00:00.000000'")
    sealing.sql("DELETE FROM call_leaves")
    assert sealing.of("a1").holds is False


@both_databases
def test_who_dies_between_the_seal_and_its_note_seals_again(sealing: Sealing) -> None:
    sealing.enter("a1")
    (batch, leaves), *_ = CallLeaves(sealing.registry).waiting()
    sealing.desk.office.seal_calls(batch, leaves)
    sealing.enter("a2")
    assert sealing.seal() == 2
    assert sealing.seals() == 3
    assert sealing.faults() == []
    assert sealing.of("a1").holds
    with sealing.registry.engine.connect() as connection:
        assert not connection.execute(LEAVES.select().where(LEAVES.c.seal.is_(None))).all()


@both_databases
def test_two_gateways_seal_one_registry(sealing: Sealing) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 20):
            sealing.registry.enter(
                CallRow(
                    call_id=f"{number:x}", payload=number, route="demo", caller="x", called="y", source="z",
                    started_at=sealing.desk.clock.now,
                )
            )  # fmt: skip
            if number % 5 == 0:
                sealing.seal()

    threads = [threading.Thread(target=work, args=(first,)) for first in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealing.seal()
    assert sealing.faults() == []
    with sealing.registry.engine.connect() as connection:
        assert len(connection.execute(LEAVES.select().where(LEAVES.c.seal.is_not(None))).all()) == 40


@pytest.mark.parametrize(
    ("batch", "leaves"), [("a", []), ("", ["00" * 32]), ("a-b", ["00" * 32]), ("a", ["0"])]
)
def test_what_is_no_batch_is_not_sealed(sealing: Sealing, batch: str, leaves: list[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each says which
        sealing.desk.office.seal_calls(batch, leaves)
    assert sealing.seals() == 0


def test_ledger_verify_names_the_call_that_was_changed(own_house: Path) -> None:
    from consent.office.office import ConsentOffice

    settings = load()
    own_house.mkdir(mode=0o700)
    office = ConsentOffice.open(settings.sql, own_house / "consent")
    registry = Registry.open(settings.sql)
    for call_id in ("a1", "a2"):
        registry.enter(
            CallRow(call_id=call_id, payload=int(call_id, 16), route="d", caller="x", called="y", source="z")
        )
    RegistrySeal(registry, office).seal_now()
    office.close()
    done = CliRunner().invoke(cli, ["ledger", "verify"])
    assert (done.exit_code, "all well" in done.output) == (0, True)
    with registry.writing() as connection:
        connection.execute(text("UPDATE calls SET caller = 'eve' WHERE call_id = 'a2'"))
    registry.close()
    done = CliRunner().invoke(cli, ["ledger", "verify"])
    assert done.exit_code == 1
    assert "the row of call a2 was changed since it entered" in done.output
    assert "all well" not in done.output
    told = json.loads(CliRunner().invoke(cli, ["ledger", "verify", "--json"]).output)
    assert told["ok"] is False
    assert told["calls"] == ["the row of call a2 was changed since it entered"]
