"""A house whose clock is wrong writes nothing and deletes nothing by it; an auditor says what the time is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from consent.errors import ClockError, GrantRefused, OperatorError
from consent.grants.scope import Scope
from consent.ledger.chain import Row, put
from consent.ledger.operators import OperatorKey
from consent.ledger.timekeeper import Timekeeper
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.withdrawal import Withdrawals
from tests.consent.conftest import Desk, both_databases

DAY = 86_400.0
SCOPE = Scope("jane", "support", "demo", "en", "c1")


def reason(office: ConsentOffice) -> str:
    with pytest.raises(GrantRefused) as caught:
        office.grant(SCOPE)
    return caught.value.reason


def clock_act(desk: Desk, office: ConsentOffice, who: str = "carol", **about: object) -> str:
    office.look()
    said = {"time_ms": round(office.clock() * 1000), "after": office.books.tip[1], **about}
    return desk.keys[who].act("clock", office.clock(), office.identity, **said)


@pytest.fixture
def beside(desk: Desk) -> Iterator[Callable[..., ConsentOffice]]:
    """Another host, or this one started again: `wrong_s` is how far its clock is from the desk's."""
    opened: list[ConsentOffice] = []

    def begin(wrong_s: float = 0.0) -> ConsentOffice:
        def clock() -> float:
            return desk.clock.now + wrong_s

        url = str(desk.office.archive._engine.url.render_as_string(hide_password=False))
        office = ConsentOffice.open(url, desk.office.keys.directory, clock=Timekeeper(clock, boot=clock))
        opened.append(office)
        return office

    yield begin
    for office in opened:
        office.close()


@both_databases
def test_a_host_half_a_year_ahead_stops_nobody_and_deletes_nothing(
    desk: Desk, beside: Callable[..., ConsentOffice]
) -> None:
    """It was so that one such row, or its hourly tidying, stopped every host for half a year."""
    done = desk.jane()
    rows = len(desk.kinds())
    ahead = beside(180 * DAY)
    assert reason(ahead) == "clock"
    with pytest.raises(ClockError, match="180 days ahead"):
        Withdrawals(ahead.books, ahead.vault).tidy()
    terms = {"terms": Desk.TERMS.hash("salt"), "by_phone": False}
    act = desk.keys["alice"].act("challenge", ahead.clock(), ahead.identity, **terms)
    with pytest.raises(ClockError):
        ahead.registrar.challenge(Desk.TERMS, act, salt="salt")
    with pytest.raises(ClockError), ahead.books.writing() as writing:
        writing.append("act.refused", None, {})
    assert len(desk.kinds()) == rows
    with desk.office.archive.reading() as connection:
        kinds = [item.kind for item in desk.office.vault.items(connection, done.voice_id)]
    assert "voiceprint" in kinds
    desk.grant()
    desk.office.grant(SCOPE)


def test_a_host_that_is_ahead_still_takes_a_voice_back(
    desk: Desk, beside: Callable[..., ConsentOffice]
) -> None:
    """Whoever takes a voice back is not told to set a clock; and no line is drawn in the future."""
    done = desk.jane()
    granted = desk.office.grant(SCOPE)
    ahead = beside(180 * DAY)
    ahead.record_usage(jti=granted.jti, call_id="c1", seconds=3.0, dialplan="demo")
    act = desk.keys["alice"].act("revoke", ahead.clock(), ahead.identity, voice_id=done.voice_id)
    Withdrawals(ahead.books, ahead.vault).revoke("jane", "asked", act)
    assert reason(desk.office) == "revoked"
    assert desk.kinds()[-2:] == ["voice.used", "voice.revoked"]
    assert desk.office.books.tip[2] <= desk.clock.now * 1000
    assert desk.office.books.prove().ok


def future_row(desk: Desk, days: float = 180) -> None:
    """What an older version wrote by a clock that was ahead."""
    ahead = Timekeeper(lambda: desk.clock.now + days * DAY, boot=desk.clock)
    ahead.told(round(ahead() * 1000))
    right, desk.office.books.clock = desk.office.books.clock, ahead
    with desk.office.books.writing() as writing:
        writing.append("voice.refused", None, {"challenge": "1", "check": "sound", "registrar": "alice"})
    desk.office.books.clock = right


@both_databases
def test_a_ledger_with_a_row_from_the_future_gets_a_way_back(
    desk: Desk, beside: Callable[..., ConsentOffice]
) -> None:
    desk.jane()
    other = beside()
    future_row(desk)
    for office in (desk.office, other):
        with pytest.raises(GrantRefused, match=r"behind the ledger's newest row by 180 days.*ledger clock"):
            office.grant(SCOPE)
    with pytest.raises(OperatorError, match="alice is registrar"):
        desk.office.set_clock("it was wrong", clock_act(desk, desk.office, "alice"))
    with pytest.raises(OperatorError, match="another time"):
        desk.office.set_clock(
            "x", clock_act(desk, desk.office, time_ms=round(desk.clock.now * 1000) + 180_000)
        )
    with pytest.raises(OperatorError, match="another row"):
        desk.office.set_clock("x", clock_act(desk, desk.office, after="0" * 64))
    act = clock_act(desk, desk.office)
    row = desk.office.set_clock("host2's clock was wrong", act)
    assert row.at_ms == round(desk.clock.now * 1000)
    for office in (desk.office, other, beside()):
        office.grant(SCOPE)
        assert office.books.prove().ok
    desk.clock.now += 60
    with pytest.raises(OperatorError):
        desk.office.set_clock("again", act)
    assert desk.kinds().count("clock.set") == 1


def test_only_an_auditors_act_takes_the_time_back(desk: Desk) -> None:
    """The office's key alone does not: whoever holds it could date rows as they like."""
    desk.jane()
    future_row(desk)
    seq, prev, _ = desk.office.books.tip
    now_ms = round(desk.clock.now * 1000)
    for act in (
        "", desk.act("carol", "resume"), desk.act("carol", "clock", time_ms=now_ms - 1, after=prev),
        desk.act("alice", "clock", time_ms=now_ms, after=prev),
    ):  # fmt: skip
        body = {"reason": "none", "by": "carol", "act": act}
        row = Row.make(seq + 1, now_ms, "clock.set", None, body, prev, desk.office.keys.signer)
        with desk.office.archive.writing() as connection:
            put(connection, row)
        assert reason(desk.office) == "ledger"
        proof = desk.office.books.prove()
        assert (proof.ok, proof.bad) == (False, seq + 1)
        with desk.office.archive.writing() as connection:
            connection.execute(text("DELETE FROM consent_ledger WHERE seq = :seq"), {"seq": seq + 1})


def test_a_start_after_a_quiet_half_year_asks_an_auditor_once(
    desk: Desk, beside: Callable[..., ConsentOffice]
) -> None:
    done = desk.jane()
    desk.clock.now += 100 * DAY
    office = beside()
    with pytest.raises(GrantRefused, match=r"100 days ahead of the ledger's newest row.*ledger clock"):
        office.grant(SCOPE)
    with pytest.raises(ClockError):
        Withdrawals(office.books, office.vault).tidy()
    office.set_clock("the gateway was off", clock_act(desk, office))
    office.grant(SCOPE)
    beside().grant(SCOPE)
    receipts = Withdrawals(office.books, office.vault).tidy()
    assert [receipt.voice_id for receipt in receipts] == [done.voice_id]


def test_a_house_without_voices_or_auditor_is_not_locked_out(tmp_path: Path) -> None:
    now = [1_800_000_000.0]

    def begin() -> ConsentOffice:
        def clock() -> float:
            return now[0]

        url = f"sqlite:///{tmp_path}/data/voicegate.db"
        return ConsentOffice.open(url, tmp_path / "data" / "consent", clock=Timekeeper(clock, boot=clock))

    begin().close()
    now[0] += 100 * DAY
    office = begin()
    key = OperatorKey.make("alice")
    OperatorDesk(office.books).add("alice", "registrar", key.public, None)
    office.close()


def test_an_auditor_resumes_an_old_backup_and_says_the_time_in_one_act(
    desk: Desk, beside: Callable[..., ConsentOffice]
) -> None:
    """The backup is 100 days old, or its newest row is from the future; this host has seen more."""
    desk.jane()
    for days in (-100, 100):
        future_row(desk, days=max(days, 0))
        future_row(desk, days=max(days, 0))
        gone = desk.office.books.tip[0]
        desk.clock.now += 100 * DAY if days < 0 else 0
        with desk.office.archive.writing() as connection:
            connection.execute(text("DELETE FROM consent_ledger WHERE seq = :seq"), {"seq": gone})
        office = beside()
        with pytest.raises(GrantRefused):
            office.grant(SCOPE)
        desk.resume(office)
        office.grant(SCOPE)
        assert office.books.tip[2] == round(desk.clock.now * 1000)


def test_the_stock_voice_asks_no_clock(desk: Desk, beside: Callable[..., ConsentOffice]) -> None:
    desk.jane()
    assert beside(180 * DAY).grant(Scope("heart", "support", "demo", "en", "c1")).voice == "heart"


# ── two hosts on one PostgreSQL, by its own clock ────────────────────────────────────────────────────────


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("wrong_s", [180 * DAY, 300.0, -300.0])
def test_postgresqls_clock_tells_which_of_two_hosts_is_wrong(
    sql_url: str, tmp_path: Path, wrong_s: float
) -> None:
    folder = tmp_path / "data" / "consent"
    right = ConsentOffice.open(sql_url, folder)
    key = OperatorKey.make("alice")
    OperatorDesk(right.books).add("alice", "registrar", key.public, None)
    rows = len(right.books.reader.rows())
    wrong = ConsentOffice.open(sql_url, folder, clock=lambda: time.time() + wrong_s)
    bob = OperatorKey.make("bob")
    with pytest.raises(ClockError, match=r"(180 days|5 min) (ahead of|behind) PostgreSQL's clock"):
        OperatorDesk(wrong.books).add("bob", "reviewer", bob.public, None)
    with pytest.raises(ClockError, match="PostgreSQL's clock"):
        Withdrawals(wrong.books, wrong.vault).tidy()
    carol = OperatorKey.make("carol")
    OperatorDesk(right.books).add("carol", "auditor", carol.public, None)
    wrong.look()
    now = wrong.clock()
    terms = {"time_ms": round(now * 1000), "after": wrong.books.tip[1]}
    act = carol.act("clock", now, wrong.identity, **terms)
    with pytest.raises(ClockError, match="PostgreSQL's clock"):
        wrong.set_clock("nobody may say what another clock denies", act)
    OperatorDesk(right.books).add("bob", "reviewer", bob.public, None)
    assert len(right.books.reader.rows()) == rows + 2
    with right.archive.reading() as connection:
        latest = connection.execute(text("SELECT max(at_ms) FROM consent_ledger")).scalar()
    assert latest is not None
    assert latest <= time.time() * 1000
    for office in (right, wrong):
        office.close()
