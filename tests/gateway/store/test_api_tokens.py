"""Tokens are kept by their hashes, hold until they are revoked or over, and say who made and used them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import api_tokens as module
from gateway.store.api_tokens import TOKENS, ApiTokens, TokenError
from gateway.store.registry import Registry


@pytest.fixture(params=["sqlite", "postgresql"])
def tokens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApiTokens]:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    registry = Registry.open(url)
    TOKENS.drop(registry.engine, checkfirst=True)
    opened = ApiTokens(registry)
    opened.open()
    opened.open()  # at every start
    yield opened
    registry.close()


def test_a_token_is_known_by_its_whole_text_alone(tokens: ApiTokens) -> None:
    made, text = tokens.make("ci", "watcher", 60, "anna")
    assert tokens.of(text) == tokens.get(made.token_id) == made
    other = tokens.make("ci", "watcher", 60, "anna")[1]
    swapped = text[:15] + other[15:]
    for wrong in ("", "vgt_", text[:-1], text + "x", text.upper(), swapped, f" {text}", f"{text}\n"):
        assert tokens.of(wrong) is None


def test_its_secret_is_in_no_file(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path / 'calls.db'}")
    tokens = ApiTokens(registry)
    tokens.open()
    made, text = tokens.make("ci", "admin", 60, "anna")
    registry.close()
    secret = text.rpartition(f"{made.token_id}_")[2].encode()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert made.token_id.encode() in kept
    assert secret not in kept
    assert sqlite3.connect(tmp_path / "calls.db").execute("select count(*) from api_tokens").fetchone() == (
        1,
    )


def test_one_that_is_over_does_not_hold(tokens: ApiTokens) -> None:
    made, text = tokens.make("ci", "watcher", 60, "anna")
    assert made.holds()
    assert not made.holds(time.time() + 61)
    assert tokens.revoke(made.token_id, "bert")
    assert not tokens.revoke(made.token_id, "carl"), "the first one stays"
    over = tokens.of(text)
    assert over is not None
    assert (over.state, over.revoked_by) == ("revoked", "bert")
    assert not tokens.revoke("nonesuch", "bert")


def test_it_says_when_and_from_where_it_was_used(tokens: ApiTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = tokens.make("ci", "watcher", 60, "anna")
    tokens.used(made, "192.0.2.7")
    used = tokens.get(made.token_id)
    assert used is not None
    assert used.used_from == "192.0.2.7"
    tokens.used(used, "192.0.2.8")
    again = tokens.get(made.token_id)
    assert again == used, "not written again at once"


@pytest.mark.parametrize(("name", "lives_s"), [("", 60), ("a" * 65, 60), ("a\nb", 60), ("a", 0), ("a", 1e9)])
def test_what_cannot_be_is_refused(tokens: ApiTokens, name: str, lives_s: float) -> None:
    with pytest.raises(TokenError):
        tokens.make(name, "watcher", lives_s, "anna")
    assert tokens.listed() == []


def test_there_are_so_many_and_no_more(tokens: ApiTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    first = tokens.make("a", "watcher", 60, "anna")[0]
    tokens.make("b", "watcher", 60, "anna")
    with pytest.raises(TokenError, match="revoke"):
        tokens.make("c", "watcher", 60, "anna")
    tokens.revoke(first.token_id, "anna")
    tokens.make("c", "watcher", 60, "anna")
    assert {one.name for one in tokens.listed()} == {"a", "b", "c"}
