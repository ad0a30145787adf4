"""Which clock is believed: beside the newest row, other machines' clocks, and the one that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from redis import Redis

from consent.archive.tables import Archive
from consent.errors import ClockError
from consent.ledger.timekeeper import ASK_EVERY_S, ClockReading, DatabaseClock, RedisClock, Timekeeper
from tests.consent.conftest import BEGIN, Valkey

HOUR, DAY = 3600.0, 86_400.0


@dataclass
class Machine:
    """A machine whose clock may be wrong, asleep or paused, and the real time around it."""

    real: float = BEGIN
    wrong_s: float = 0.0
    """how far its clock is ahead of the real time"""
    boot: float = 1_000.0
    others: list[FakeClock] = field(default_factory=list)

    def keeper(self) -> Timekeeper:
        """As a process has it that begins now."""
        return Timekeeper(lambda: self.real + self.wrong_s, boot=lambda: self.boot, others=self.others)

    def passes(self, seconds: float) -> None:
        """Time passes, as when awake or asleep."""
        self.real += seconds
        self.boot += seconds

    def paused(self, seconds: float) -> None:
        """A virtual machine does not know that time passes, neither by its clock nor by its count."""
        self.real += seconds
        self.wrong_s -= seconds


@dataclass
class FakeClock:
    """Another clock, right or wrong, there or away."""

    now: Callable[[], float]
    elsewhere: bool = True
    away: bool = False
    asked: int = 0

    def read(self, boot: Callable[[], float]) -> ClockReading | None:
        self.asked += 1
        return None if self.away else ClockReading("the other clock", self.now(), boot(), self.elsewhere)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def with_other(machine: Machine, elsewhere: bool = True) -> FakeClock:
    """The real time is to be had."""
    machine.others.append(FakeClock(lambda: machine.real, elsewhere))
    return machine.others[0]


def newest(at: float) -> int:
    return round(at * 1000)


NOW = newest(BEGIN)


# ── the newest row ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("behind_s", "believed"), [(0, True), (119, True), (121, False), (180 * DAY, False)])
def test_a_clock_may_be_two_minutes_behind_the_newest_row(
    machine: Machine, behind_s: float, believed: bool
) -> None:
    keeper = machine.keeper()
    if believed:
        assert keeper.believe(newest(BEGIN + behind_s)) == BEGIN
    else:
        with pytest.raises(ClockError, match=r"behind the ledger's newest row by .*says 2027-01-15"):
            keeper.believe(newest(BEGIN + behind_s))


def test_a_start_a_month_ahead_of_the_newest_row_asks_an_auditor(machine: Machine) -> None:
    with pytest.raises(ClockError, match=r"180 days ahead .* no other .* confirms .*ledger clock"):
        machine.keeper().believe(newest(BEGIN - 180 * DAY))
    assert machine.keeper().believe(newest(BEGIN - 29.9 * DAY)) == BEGIN
    assert machine.keeper().believe(0) == BEGIN, "a new ledger has no row to compare with"


def test_a_quiet_ledger_needs_nobody_where_another_machine_confirms_the_time(machine: Machine) -> None:
    with_other(machine)
    assert machine.keeper().believe(newest(BEGIN - 300 * DAY)) == BEGIN


def test_a_clock_on_the_same_machine_confirms_nothing_but_may_contradict(machine: Machine) -> None:
    other = with_other(machine, elsewhere=False)
    with pytest.raises(ClockError, match="no other clock confirms it"):
        machine.keeper().believe(newest(BEGIN - 300 * DAY))
    other.now = lambda: BEGIN - 300 * DAY  # a process may see another time than its machine's
    with pytest.raises(ClockError, match="300 days ahead of the other clock"):
        machine.keeper().believe(newest(BEGIN - 300 * DAY))


def test_what_an_auditor_said_a_moment_ago_is_believed(machine: Machine) -> None:
    keeper = machine.keeper()
    with pytest.raises(ClockError):
        keeper.believe(newest(BEGIN - 180 * DAY))
    keeper.told(newest(BEGIN - DAY))
    with pytest.raises(ClockError):
        keeper.believe(newest(BEGIN - 180 * DAY))
    keeper.told(NOW)
    assert keeper.believe(newest(BEGIN - 180 * DAY)) == BEGIN


# ── other machines' clocks ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wrong_s", [121, -121, 180 * DAY, -180 * DAY])
def test_another_clock_contradicts_from_two_minutes_on(machine: Machine, wrong_s: float) -> None:
    with_other(machine)
    machine.wrong_s = wrong_s
    way = "ahead of" if wrong_s > 0 else "behind"
    with pytest.raises(ClockError, match=f"(180 days|2 min) {way} the other clock .*set the wrong one right"):
        machine.keeper().believe(newest(BEGIN - DAY))
    machine.wrong_s = 119 if wrong_s > 0 else -119
    machine.keeper().believe(newest(BEGIN - DAY))


def test_one_of_two_clocks_is_enough_to_contradict(machine: Machine) -> None:
    with_other(machine)
    machine.others.append(FakeClock(lambda: machine.real - HOUR))
    with pytest.raises(ClockError, match="60 min ahead"):
        machine.keeper().believe(NOW)


def test_another_clock_that_went_away_is_known_by_the_time_since(machine: Machine) -> None:
    other = with_other(machine)
    keeper = machine.keeper()
    keeper.believe(NOW)
    other.away = True
    machine.passes(40 * DAY)
    assert keeper.believe(NOW) == BEGIN + 40 * DAY
    machine.wrong_s = HOUR
    with pytest.raises(ClockError, match="60 min ahead of the other clock"):
        keeper.believe(NOW)


def test_other_clocks_are_not_asked_at_every_grant(machine: Machine) -> None:
    other = with_other(machine)
    keeper = machine.keeper()
    for _ in range(1_000):
        keeper.believe(NOW)
        machine.passes(0.001)
    assert other.asked == 1
    keeper.ask()  # a task does, all the while
    machine.passes(ASK_EVERY_S)
    keeper.believe(NOW)
    assert other.asked == 2


# ── what happens to honest machines ──────────────────────────────────────────────────────────────────────

both = pytest.mark.parametrize("alone", [True, False], ids=["alone", "with another clock"])


@both
@pytest.mark.parametrize("step_s", [1.0, -1.0, 37.0], ids=["a leap", "a second back", "NTP's first step"])
def test_small_steps_pass(machine: Machine, alone: bool, step_s: float) -> None:
    if not alone:
        with_other(machine)
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.passes(60)
    machine.wrong_s += step_s
    keeper.believe(NOW)


@both
def test_a_laptop_that_slept_goes_on(machine: Machine, alone: bool) -> None:
    """Its clock and its count went on together."""
    if not alone:
        with_other(machine)
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.passes(60 * DAY)
    assert keeper.believe(NOW) == machine.real


@both
def test_a_year_of_a_cheap_quartz_passes(machine: Machine, alone: bool) -> None:
    if not alone:
        with_other(machine)
    keeper = machine.keeper()
    for _ in range(365):
        keeper.believe(newest(machine.real))
        machine.passes(DAY)
        machine.boot += 5  # against a clock that NTP holds
        if not alone:
            keeper.ask()


def test_a_virtual_machine_that_was_paused_goes_on_when_its_clock_is_right_again(machine: Machine) -> None:
    with_other(machine)
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.paused(5 * HOUR)
    machine.passes(ASK_EVERY_S * 2)
    with pytest.raises(ClockError, match="5 h behind the other clock"):
        keeper.believe(NOW)
    machine.passes(2)
    machine.wrong_s = 0.0  # NTP
    assert keeper.believe(NOW) == machine.real, "another machine confirms it: at once"


def test_a_paused_machine_alone_cannot_be_told_from_one_whose_clock_jumped(machine: Machine) -> None:
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.paused(5 * HOUR)
    keeper.believe(NOW)  # nothing here knows better
    machine.wrong_s = 0.0
    with pytest.raises(ClockError, match=r"jumped 5 h ahead .* was paused\), start the gateway again"):
        keeper.believe(NOW)
    assert machine.keeper().believe(NOW) == machine.real, "a start may be some days ahead"
    keeper.told(newest(machine.real))
    assert keeper.believe(NOW) == machine.real, "or an auditor says so"


@both
@pytest.mark.parametrize("wrong_s", [180 * DAY, -180 * DAY], ids=["ahead", "behind"])
def test_a_host_that_began_wrong_goes_on_once_it_is_set_right(
    machine: Machine, alone: bool, wrong_s: float
) -> None:
    if not alone:
        with_other(machine)
    machine.wrong_s = wrong_s
    keeper = machine.keeper()
    for _ in range(3):
        machine.passes(10)
        with pytest.raises(ClockError):
            keeper.believe(NOW)
    machine.wrong_s = 0.0
    machine.passes(10)
    assert keeper.believe(NOW) == machine.real


@both
def test_a_clock_that_jumps_under_a_running_host_is_noticed_and_forgiven(
    machine: Machine, alone: bool
) -> None:
    if not alone:
        with_other(machine)
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.passes(HOUR)
    for wrong_s in (180 * DAY, 3 * 60, -3 * 60):
        machine.wrong_s = wrong_s
        with pytest.raises(ClockError):
            keeper.believe(newest(BEGIN - HOUR))
        machine.wrong_s = 0.0
        machine.passes(10)
        assert keeper.believe(newest(BEGIN - HOUR)) == machine.real


def test_a_clock_does_not_creep_away_in_small_steps(machine: Machine) -> None:
    keeper = machine.keeper()
    keeper.believe(NOW)
    machine.wrong_s = 110
    keeper.believe(NOW)
    machine.wrong_s = 220
    with pytest.raises(ClockError):
        keeper.believe(NOW)


# ── real ones ────────────────────────────────────────────────────────────────────────────────────────────


def test_postgresql_says_its_time(postgresql: str) -> None:
    archive = Archive.open(postgresql)
    said = DatabaseClock(archive).read(time.monotonic)
    archive.close()
    assert said is not None
    assert abs(said.said - time.time()) < 60
    assert not said.elsewhere, "it is reached by a unix socket"


def test_sqlite_has_no_clock(sql_url: str) -> None:
    archive = Archive.open(sql_url)
    assert DatabaseClock(archive).read(time.monotonic) is None
    archive.close()


def test_redis_says_its_time_and_an_absent_one_nothing(valkey: Valkey) -> None:
    clock = RedisClock(valkey.url)
    said = clock.read(time.monotonic)
    assert said is not None
    assert abs(said.said - time.time()) < 60
    assert not said.elsewhere
    assert Redis.from_url(valkey.url).ping()
    valkey.stop()
    assert clock.read(time.monotonic) is None
