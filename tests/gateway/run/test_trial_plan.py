"""A reload's trial reads plans as the start does: what the start refuses, it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from consent.service.front_office import FrontOffice
from gateway.config.settings import Settings
from gateway.run.trial_plan import trial
from tests.gateway.front.events.test_message_mail import PLAN


def test_mail_without_a_relay_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrontOffice, "names", lambda _: frozenset({"heart", "stock"}))
    (tmp_path / "plan.toml").write_text(PLAN)
    conf = Settings(data_dir=tmp_path, dialplans=tmp_path)
    assert "plan.toml:8: route 'night': notify needs VOICEGATE_MAIL_RELAY" in trial(conf)["error"]
    relayed = Settings(
        data_dir=tmp_path, dialplans=tmp_path, mail_relay="127.0.0.1", mail_from="a@lindens.example"
    )
    assert len(trial(relayed)["version"]) == 12
