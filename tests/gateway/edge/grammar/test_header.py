"""Texts in quotes: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.grammar.header import parameters, quoted, reason, reason_text, unquoted


@given(st.text(max_size=200))
def test_a_quoted_text_is_one_whole_value_and_reads_as_it_was(text: str) -> None:
    said = quoted(text)
    assert "\r" not in said
    assert "\n" not in said
    found = parameters(f";text={said};end=1")
    assert (unquoted(found["text"] or ""), found["end"]) == (
        "".join(c if c.isprintable() else " " for c in text),
        "1",
    )


@pytest.mark.parametrize("text", ['say "no"', "a \\ b", "a\\", '"', "x; y, z"])
def test_a_reason_keeps_its_words(text: str) -> None:
    assert reason_text(reason(488, text)) == text
    assert reason_text(f"{reason(488, text)}, Q.850;cause=16") == text


@pytest.mark.parametrize("value", ["", "SIP", "SIP;cause=1", 'SIP;text="a', "SIP; ;"])
def test_a_reason_without_words_has_none(value: str) -> None:
    assert reason_text(value) is None
