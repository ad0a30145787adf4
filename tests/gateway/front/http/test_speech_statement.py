"""The signed statement that a call's voice is synthetic: true, verifiable, and without the caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consent.errors import GrantRefused
from consent.grants.grant import SPEECH_TYP, GrantVerifier
from consent.office.office import ConsentOffice
from gateway.config.paths import consent_dir, grant_keys_path
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.front.http.speech_statement import SpeechStatements
from gateway.store.registry import CallRow, Registry

PLAN = """
[[route]]
name = "demo"
called = ["*"]
do = [
    { verb = "answer" },
    { verb = "disclose", principal = "Acme Ltd", language = "en" },
    { verb = "say", text = "hello" },
]
"""


@dataclass
class Stage:
    statements: SpeechStatements
    registry: Registry
    settings: Settings

    def enter(self, voice: str | None = "heart") -> str:
        row = CallRow(
            call_id="0123456789abcdef", payload=7, payload_whole=7, gateway="1a2b", dialplan="10.toml",
            route="demo", caller="sip:+4915112345678@example.org", called="sip:demo@here", source="192.0.2.9",
            voice=voice,
        )  # fmt: skip
        return self.registry.enter(row).call_id


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "10.toml").write_text(PLAN)
    settings = Settings(data_dir=tmp_path / "data", host="192.0.2.1")
    (tmp_path / "data").mkdir(mode=0o700)
    office = ConsentOffice.open(settings.sql, consent_dir(settings))
    registry = Registry.open(settings.sql)
    plans = Dialplan.load(tmp_path / "plans")
    yield Stage(SpeechStatements(office, registry, lambda _: plans, settings, "1a2b"), registry, settings)
    registry.close()
    office.close()


async def test_it_says_that_the_voice_is_synthetic_and_for_whom_it_speaks(stage: Stage) -> None:
    token = await stage.statements.of(stage.enter())
    assert token is not None
    claims = GrantVerifier.load(grant_keys_path(stage.settings)).claims(token, SPEECH_TYP)
    assert claims["synthetic"] is True
    assert claims["on_behalf_of"] == ["Acme Ltd"]
    assert claims["jti"] == "0123456789abcdef"
    assert claims["iss"] == "voicegate 1a2b"
    assert "no person's voice" in claims["voice"]
    assert "watermark" in claims["mark"]["technique"]
    assert claims["detector"] == "http://192.0.2.1:8091/"
    assert claims["iat"] >= claims["began"]


async def test_a_persons_voice_is_named_as_a_copy(stage: Stage) -> None:
    shown = await stage.statements.shown(stage.enter("jane"))
    assert shown is not None
    assert "a copy of a person's voice" in shown["claims"]["voice"]
    assert "jane" not in json.dumps(shown["claims"])


async def test_it_names_no_caller_and_is_whole_for_a_reader(stage: Stage) -> None:
    shown = await stage.statements.shown(stage.enter())
    assert shown is not None
    assert "49151" not in json.dumps(shown)
    assert "192.0.2.9" not in json.dumps(shown)
    head, body, signature = shown["statement"].split(".")
    assert shown["keys"]
    forged = f"{head}.{body[:-2]}AA.{signature}"
    with pytest.raises(GrantRefused):
        GrantVerifier.load(grant_keys_path(stage.settings)).claims(forged, SPEECH_TYP)


async def test_of_a_call_that_nobody_knows_nothing_is_said(stage: Stage) -> None:
    assert await stage.statements.of("f" * 16) is None
    assert await stage.statements.shown("f" * 16) is None


async def test_a_registry_that_is_away_ends_no_call(stage: Stage) -> None:
    call_id = stage.enter()
    stage.registry.close()
    (stage.settings.data_dir / "voicegate.db").unlink()
    assert await stage.statements.of(call_id) is None


async def test_a_house_that_binds_all_addresses_names_one_that_others_reach(stage: Stage) -> None:
    stage.statements._settings = stage.settings.model_copy(update={"host": "0.0.0.0"})
    shown = await stage.statements.shown(stage.enter())
    assert shown is not None
    assert shown["claims"]["detector"].endswith(":8091/")
    assert "0.0.0.0" not in shown["claims"]["detector"]
