"""A reload's trial reads plans as the start does: it refuses what the start refuses, and what needs one."""

from __future__ import annotations

from pathlib import Path

import pytest

from consent.service.front_office import FrontOffice
from gateway.config.settings import Settings
from gateway.run.trial_plan import trial
from model.ears import SOCKET_VARIABLE
from tests.gateway.front.events.test_message_mail import PLAN as NOTIFIES

HAS_EARS = {SOCKET_VARIABLE: "/run/ears.sock"}
BY_LANGUAGE = """
[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "converse", instructions = "Be brief.", greeting = "Hello.", languages = { de = "deutsch" } },
]

[[route]]
name = "deutsch"
language = "de"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "de" },
  { verb = "say", text = "Guten Tag." },
]
"""


@pytest.fixture(autouse=True)
def _office(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrontOffice, "names", lambda _: frozenset({"heart", "stock"}))


def house(folder: Path, plan: str, **more: object) -> Settings:
    (folder / "plan.toml").write_text(plan)
    return Settings(data_dir=folder, dialplans=folder, **more)  # type: ignore[arg-type]  # whatever the test gives


def test_mail_without_a_relay_is_refused(tmp_path: Path) -> None:
    said = trial(house(tmp_path, NOTIFIES), {})["error"]
    assert "plan.toml:8: route 'night': notify needs VOICEGATE_MAIL_RELAY" in said
    relayed = house(tmp_path, NOTIFIES, mail_relay="127.0.0.1", mail_from="a@lindens.example")
    assert len(trial(relayed, {})["version"]) == 12


def test_the_first_plan_that_leads_by_language_wants_a_restart(tmp_path: Path) -> None:
    settings = house(tmp_path, BY_LANGUAGE, engine="chroma")
    said = trial(settings, {})["error"]
    assert "it leads callers by their language, and this house was started without ears; restart" in said
    assert "version" in trial(settings, HAS_EARS)
