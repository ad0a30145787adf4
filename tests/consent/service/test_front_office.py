"""The gateway's own copy of an office's public keys, where the office runs as another user."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from consent.errors import GrantRefused
from consent.grants import grant
from consent.grants.grant import GrantVerifier, sign
from consent.grants.scope import Scope
from consent.office.rotation import Rotation
from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from consent.service.office_rooms import OfficePlace
from gateway.front.house import ledger_watch
from gateway.front.house.ledger_watch import LedgerWatch
from gateway.front.house.metrics import Metrics
from tests.consent.conftest import Desk
from tests.consent.service.served import serving
from tests.needs import HANGS_S

PROMISED_S: Final = 2.0
"""`docs/consent.md`: processes that run see new keys within a second or two."""


@pytest.fixture
def away(desk: Desk, sql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontOffice]:
    """The office as a front sees it that keeps its copy in a directory of its own, and waits for nothing."""
    folder = tmp_path / "data" / "consent"
    path = folder / "office.sock"
    place = OfficePlace(sql_url, folder, tmp_path / "k", tmp_path / "m")
    with serving(place, path), contextlib.closing(OfficeClient(path)) as client:
        office = FrontOffice(client, tmp_path / "gateway" / "consent" / "grant-keys.json")
        office.publish_keys()
        assert ledger_watch.LEDGER_S + grant.REREAD_S <= PROMISED_S
        monkeypatch.setattr(grant, "REREAD_S", 0.0)
        monkeypatch.setattr(ledger_watch, "LEDGER_S", 0.01)
        yield office


async def test_a_revoked_key_is_trusted_no_longer_though_nobody_asks_for_a_grant(
    desk: Desk, away: FrontOffice
) -> None:
    running = GrantVerifier.load(away.public_keys_path)  # as halls and engines have one
    stolen = desk.office.keys.signer
    token = away.grant(Scope("heart", "support", "demo", "en", "c1")).token
    forged = sign(running.claims(token, "voice-grant+jws") | {"jti": "a thief's"}, stolen.private, stolen.kid)
    running.verify(forged)
    desk.rotate("signing")
    since = desk.clock.now - 3600
    act = desk.act("alice", "revoke-key", kid=stolen.kid, since_ms=round(since * 1000))
    Rotation(desk.office.books, desk.office.vault).revoke(stolen.kid, since, "a laptop was stolen", act)

    watch = asyncio.create_task(LedgerWatch(away, Metrics()).run())
    try:
        async with asyncio.timeout(HANGS_S):
            # a file tells nobody that it changed
            while stolen.kid in json.loads(away.public_keys_path.read_text())["keys"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(GrantRefused, match="was revoked"):
            running.verify(forged)
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


def test_a_key_that_is_revoked_while_the_copy_is_written_is_not_written_back(
    away: FrontOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread, or the office itself, wrote the newer keys before this one wrote what it had heard."""
    said = iter(["before the revocation", *["after it"] * 2])
    monkeypatch.setattr(away, "client", SimpleNamespace(ask=lambda _: next(said)))
    away.public_keys_path.write_text("after it")
    away.publish_keys()
    assert away.public_keys_path.read_text() == "after it"
