"""Where telephones are outlives the front that was told: all of a change, or nothing of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from gateway.ipc.binding import Binding, hash_of
from gateway.store.registry import Registry, RegistryError
from gateway.store.sip_bindings import BINDINGS, SipBindings

NOW = float(int(time.time()))


def binding(contact: str = "sip:a@192.0.2.1", **more: Any) -> Binding:
    facts = {
        "user": "alice", "key": hash_of(contact), "contact": contact, "instance": "<urn:uuid:1>", "reg_id": 1,
        "q": "0.5", "path": ("<sip:é;lr>",), "call_id_hash": hash_of("c"), "cseq": (1 << 31) - 1,
        "transport": "udp", "host": "192.0.2.7", "port": 5060, "source": "192.0.2.7", "user_agent": "Desk",
        "registered_at": NOW, "expires_at": NOW + 86_400,
    }  # fmt: skip
    return Binding(**(facts | more))


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    opened = Registry.open(url)
    BINDINGS.drop(opened.engine, checkfirst=True)
    yield opened
    opened.close()


@pytest.fixture
def table(registry: Registry) -> SipBindings:
    made = SipBindings(registry, ("g2", "g1"))
    made.open()
    made.open()  # at every start
    return made


def test_what_was_kept_is_found_again(table: SipBindings) -> None:
    second = binding("sip:b@192.0.2.1", path=(), registered_at=NOW + 1)
    table.keep([binding(), second], [])
    assert table.listed() == [binding(), second]
    assert sorted(table.load(), key=lambda one: one.registered_at) == [binding(), second]


def test_a_change_puts_and_takes(table: SipBindings) -> None:
    table.keep([binding(), binding("sip:b@192.0.2.1")], [])
    later = replace(binding(), cseq=7)
    table.keep([later], [binding("sip:b@192.0.2.1"), binding("sip:never@there")])
    assert table.load() == [later]


def test_the_next_front_has_no_connection_and_nothing_that_expired(table: SipBindings) -> None:
    tcp, over = binding(transport="tcp"), binding("sip:b@192.0.2.1", expires_at=NOW - 1)
    table.keep([tcp, over], [])
    (found,) = table.load()
    assert found.lost_at is not None
    assert replace(found, lost_at=None) == tcp


def test_what_expired_is_forgotten_and_nothing_else(table: SipBindings) -> None:
    table.keep([binding(), binding("sip:b@192.0.2.1", expires_at=NOW - 1)], [])
    table.forget_expired()
    assert table.load() == [binding()]


def test_a_gateway_has_its_own_under_all_its_names(registry: Registry, table: SipBindings) -> None:
    SipBindings(registry, ("g1",)).keep([binding()], [])
    other = SipBindings(registry, ("elsewhere",))
    other.keep([binding()], [])
    assert len(table.listed()) == 2
    table.keep([], [binding()])
    assert table.load() == []
    assert other.load() == [binding()]


def test_of_a_change_that_fails_nothing_is_kept(
    table: SipBindings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.keep([binding()], [])
    twice = [binding("sip:b@192.0.2.1"), replace(binding("sip:c@192.0.2.1"), contact=None)]
    with pytest.raises(RegistryError):
        table.keep(twice, [binding()])
    assert table.load() == [binding()]

    def away() -> None:
        raise OperationalError("no", None, Exception("database is locked"))

    monkeypatch.setattr(registry, "writing", away)
    with pytest.raises(RegistryError, match="database is locked"):
        table.keep([], [binding()])


def test_without_a_table_there_is_nothing_to_list(registry: Registry) -> None:
    assert SipBindings(registry).listed() == []
