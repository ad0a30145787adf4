"""Which line takes a call: one of the right kind, in the process that would lose the fewest."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.edge.proxy.lines import LineInfo, Lines

G711, G722 = ("PCMU", "PCMA"), ("G722", "PCMU")


def first(held: dict[str, int]) -> str | None:
    return next(iter(held), None)


@pytest.fixture
def lines() -> Lines:
    """Two processes, each with a line of each kind."""
    up = Lines()
    for number in range(2):
        for kind, calls in (("narrow", 8), ("wide", 4)):
            port = 5000 + 10 * number + calls
            up.up(LineInfo(f"{kind[0]}{number}", kind, port, calls, process=f"sip{number}"))
    return up


def take(lines: Lines, codecs: tuple[str, ...], call_id: str) -> str:
    """The process that has the call now."""
    line = lines.pick(codecs, first)
    assert line is not None
    line.calls.add(call_id)
    return line.info.process


def test_a_process_that_dies_takes_half_of_the_calls_at_most(lines: Lines) -> None:
    held: Counter[str] = Counter()
    for n in range(24):
        held[take(lines, G722 if n % 3 == 0 else G711, f"c{n}")] += 1
        assert abs(held["sip0"] - held["sip1"]) <= 1
    assert lines.pick(G711, first) is None


def test_a_call_of_each_kind_goes_to_a_process_of_its_own(lines: Lines) -> None:
    assert {take(lines, G711, "a"), take(lines, G722, "b")} == {"sip0", "sip1"}


def test_who_comes_back_empty_gets_the_next_calls(lines: Lines) -> None:
    for n in range(6):
        take(lines, G711, f"c{n}")
    lines.up(LineInfo("n1", "narrow", 5999, 8, process="sip1"))
    assert [take(lines, G711, f"d{n}") for n in range(3)] == ["sip1"] * 3


def test_lines_without_a_process_are_each_alone() -> None:
    lines = Lines()
    for name, port in (("n0", 1), ("n1", 2)):
        lines.up(LineInfo(name, "narrow", port, 4))
    taken = []
    for n in range(4):
        line = lines.pick(G711, first)
        assert line is not None
        line.calls.add(f"c{n}")
        taken.append(line.info.name)
    assert taken == ["n0", "n1", "n0", "n1"]
