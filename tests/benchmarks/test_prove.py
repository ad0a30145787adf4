"""A long proof goes on where it was killed, at one commit; and says so when it does not hold."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from benchmarks import prove
from benchmarks.proofs import Plain


class Counting(Plain):
    """Three steps; notes which were done, and fails or is killed where it is told to."""

    what = "one, two and three are numbers"

    def __init__(self) -> None:
        self.did: list[str] = []
        self.killed_at = ""
        self.wrong = ""

    def steps(self) -> list[str]:
        return ["one", "two", "three"]

    def prove(self, step: str) -> int:
        if step == self.killed_at:
            raise KeyboardInterrupt
        self.did.append(step)
        return 0 if step == self.wrong else 1

    def result(self, found: dict[str, int]) -> tuple[bool, str]:
        return all(found.values()), f"{sum(found.values())} numbers"


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(prove, "KEPT", tmp_path)
    monkeypatch.setattr(prove, "PROOFS", {"counting": made})
    monkeypatch.setattr(prove, "commit", lambda: "abc1234")
    return made


def test_what_was_killed_goes_on_and_what_is_done_is_not_done_again(
    counting: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not prove.run("counting", counting, steps=1)
    counting.killed_at = "three"
    with pytest.raises(KeyboardInterrupt):
        prove.run("counting", counting, None)
    assert counting.did == ["one", "two"]
    prove.table()
    assert "`abc1234` | 1 of 3 steps are left; 2 numbers" in capsys.readouterr().out
    counting.killed_at = ""
    assert prove.run("counting", counting, None)
    assert prove.run("counting", counting, None)
    assert counting.did == ["one", "two", "three"]
    prove.table()
    assert "`make prove-counting` | `abc1234` | 3 numbers |" in capsys.readouterr().out


def test_what_does_not_hold_is_said(counting: Counting, capsys: pytest.CaptureFixture[str]) -> None:
    counting.wrong = "two"
    assert not prove.run("counting", counting, None)
    assert capsys.readouterr().out.startswith("FAILS at abc1234: 2 numbers")


@pytest.mark.parametrize("commit", ["def5678", "abc1234+changes"])
def test_another_commit_and_a_changed_checkout_begin_anew(
    counting: Counting, monkeypatch: pytest.MonkeyPatch, commit: str
) -> None:
    prove.run("counting", counting, 2)
    monkeypatch.setattr(prove, "commit", lambda: commit)
    for _ in range(2 if "+" in commit else 1):
        counting.did.clear()
        assert prove.run("counting", counting, None)
        assert counting.did == ["one", "two", "three"]


def test_a_checkout_that_moves_under_a_proof_ends_it(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter(("abc1234", "abc1234", "def5678"))
    monkeypatch.setattr(prove, "commit", lambda: next(commits))
    with pytest.raises(click.ClickException, match="no longer abc1234"):
        prove.run("counting", counting, None)
    assert counting.did == ["one", "two"], "what the second found is not kept"
    monkeypatch.setattr(prove, "commit", lambda: "abc1234")
    counting.did.clear()
    assert prove.run("counting", counting, None)
    assert counting.did == ["two", "three"]
