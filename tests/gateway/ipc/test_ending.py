"""How a call ends: one set of words, which old stores and new processes read alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.ipc.ending import CallEnding, End, Party

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.mark.parametrize("end", End)
def test_an_ending_is_its_text_and_the_text_is_the_ending(end: End) -> None:
    for detail in ("", "revoked", "486", "a: b: c", "failed: lost"):
        ending = CallEnding(end, detail)
        read = CallEnding.read(json.loads(json.dumps({"how": ending}))["how"])
        assert (read, read.end, read.party) == (ending, end, ending.party)
        assert CallEnding.from_json(ending.to_json()) == ending
        assert str(ending).startswith(end.value)


def test_the_texts_are_those_that_operators_look_for() -> None:
    assert CallEnding(End.CALLER) == "caller hung up"
    assert CallEnding(End.VOICE_REFUSED, "revoked") == "failed: the voice may not be used: revoked"
    assert CallEnding(End.FAILED, "the line answered 486") == "failed: the line answered 486"


@pytest.mark.parametrize("end", End)
def test_operators_can_read_what_each_ending_means(end: End) -> None:
    assert f"`{end.value}`" in OPERATIONS.read_text()


def test_a_failure_can_be_told_by_its_first_word_and_nothing_else_can() -> None:
    assert [
        end for end in End if (CallEnding(end).party is Party.FAULT) != end.value.startswith("failed")
    ] == []


@pytest.mark.parametrize(
    ("old", "end"),
    [
        ("failed: lost", End.ENGINE_LOST),
        ("failed: its hall went away", End.HALL_DIED),
        ("lost: its hall went away", End.HALL_DIED),
        ("failed: the gateway stops", End.GATEWAY_STOPPED),
        ("hall refused: the hall is full", End.REFUSED),
        ("failed: 408 Request Timeout", End.FAILED),
        ("failed: the line answered 486", End.FAILED),
        ("failed: the voice may not be used: revoked", End.VOICE_REFUSED),
    ],
)
def test_rows_of_older_versions_are_understood_and_keep_their_words(old: str, end: End) -> None:
    assert (CallEnding.read(old), CallEnding.read(old).end) == (old, end)


def test_a_text_that_nobody_knows_is_read_from_a_store_and_refused_from_a_process() -> None:
    assert (CallEnding.read("eaten by a dog").end, CallEnding.read("eaten by a dog").party) == (
        None,
        Party.OTHER,
    )
    for no_ending in ("eaten by a dog", "", "caller hung upside down", None, 5, ["hung up"]):
        with pytest.raises(ValueError, match="how a call ends"):
            CallEnding.from_json(no_ending)


def test_a_peer_that_says_much_does_not_spoil_a_line_of_the_log() -> None:
    ending = CallEnding(End.FAILED, "503 Service\r\n  Unavailable\n" + "x" * 500)
    assert str(ending).startswith("failed: 503 Service Unavailable xxx")
    assert len(ending) < 200
    assert "\n" not in ending
