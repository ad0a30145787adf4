"""Mentions: times, dates, numbers, yes and no, as recognisers write them."""

from __future__ import annotations

from datetime import date

import pytest

from model.meaning.mentions import Mentions, find_mentions

MONDAY = date(2026, 11, 30)


@pytest.mark.parametrize(
    ("said", "times"),
    [
        ("can i come at half past five", ["05:30 or 17:30"]),
        ("Half five would be good.", ["05:30 or 17:30"]),
        ("at quarter to six in the evening", ["17:45"]),
        ("ten past nine in the morning", ["09:10"]),
        ("5:30 p.m.", ["17:30"]),
        ("5.30pm, or 9 a.m.", ["17:30", "09:00"]),
        ("five thirty", ["05:30 or 17:30"]),
        ("at five", ["05:00 or 17:00"]),
        ("five o'clock", ["05:00 or 17:00"]),
        ("seven oh five pm", ["19:05"]),
        ("twelve thirty", ["00:30 or 12:30"]),
        ("at 17:45", ["17:45"]),
        ("noon or midnight", ["12:00", "00:00"]),
        ("between nine am and 11 pm", ["09:00", "23:00"]),
        ("a quarter past one", ["01:15 or 13:15"]),
        ("at five people", []),
        ("the closing price is 3.50", []),
        ("half of them", []),
        ("after two days", []),
    ],
)
def test_times(said: str, times: list[str]) -> None:
    assert list(find_mentions(said, MONDAY).times) == times


@pytest.mark.parametrize(
    ("said", "dates"),
    [
        ("are you open today", ["2026-11-30"]),
        ("tomorrow at five", ["2026-12-01"]),
        ("the day after tomorrow", ["2026-12-02"]),
        ("on friday", ["2026-12-04"]),
        ("this monday", ["2026-11-30"]),
        ("next friday", ["2026-12-11"]),
        ("the third of may", ["2027-05-03"]),
        ("December 5th", ["2026-12-05"]),
        ("on the twenty first of december", ["2026-12-21"]),
        ("may the fourth 2028", ["2028-05-04"]),
        ("friday the 4th of december", ["2026-12-04"]),
        ("in two weeks", ["2026-12-14"]),
        ("in a week or in 3 days", ["2026-12-07", "2026-12-03"]),
        ("february thirtieth", []),
        ("may i ask you something", []),
        ("are you open on sundays", []),
        ("in five minutes", []),
    ],
)
def test_dates(said: str, dates: list[str]) -> None:
    assert list(find_mentions(said, MONDAY).dates) == dates


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("for twenty five people", ["25"]),
        ("two hundred and six bones", ["206"]),
        ("three thousand four hundred", ["3400"]),
        ("a hundred euros", ["100"]),
        ("5 or 1,200", ["5", "1200"]),
        ("two and a half", ["2.5"]),
        ("three point one four", ["3.14"]),
        ("it is five five five oh one two", ["555012"]),
        ("double seven zero four", ["7704"]),
        ("030 123 4567", ["0301234567"]),
        ("zero", ["0"]),
        ("one two", ["1", "2"]),
        ("tomorrow at half past five for four", ["4"]),
        ("nothing at all", []),
        ("hundred", []),
    ],
)
def test_numbers(said: str, numbers: list[str]) -> None:
    assert list(find_mentions(said, MONDAY).numbers) == numbers


@pytest.mark.parametrize(
    "said", ["Yes.", "yeah that's right", "yes please", "that is correct", "okay", "Sure, thank you."]
)
def test_yes(said: str) -> None:
    assert find_mentions(said).agrees is True


@pytest.mark.parametrize(
    "said",
    ["No.", "no thank you", "nope", "that's not right", "no i did not", "absolutely not", "no that is wrong"],
)
def test_no(said: str) -> None:
    assert find_mentions(said).agrees is False


@pytest.mark.parametrize(
    "said",
    ["", "yes and no", "no that's right", "yes when do you open", "i know", "right turn ahead", "what"],
)
def test_neither_yes_nor_no(said: str) -> None:
    assert find_mentions(said).agrees is None


def test_all_of_it_travels_as_json() -> None:
    found = find_mentions("yes", MONDAY)
    assert (found, found.as_json()) == (Mentions(agrees=True), {"agrees": True})
    assert find_mentions("tomorrow at 5 pm for four", MONDAY).as_json() == {
        "times": ["17:00"],
        "dates": ["2026-12-01"],
        "numbers": ["4"],
    }
