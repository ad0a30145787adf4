"""A house has ears for engines that hear by them, and to write down what callers say to one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consent.models.model_files import locked_model
from gateway.config import packages
from gateway.config.settings import Settings
from gateway.run.ears_wanted import wants_ears

PLAN = """
[[route]]
name = "demo"
called = ["demo"]
keep = {{ transcript = {keeps} }}
do = [
  {{ verb = "answer" }},
  {{ verb = "disclose", principal = "Acme", language = "en", text = "What you say is written down." }},
]
"""


def house(folder: Path, *, keeps: bool, weights: str | None, **settings: object) -> Settings:
    """A house whose plan keeps transcripts or not, and that has some weights or none."""
    (folder / "dialplans").mkdir()
    (folder / "dialplans" / "plan.toml").write_text(PLAN.format(keeps=str(keeps).lower()))
    if weights is not None:
        for path in locked_model(weights).paths(folder / "models"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return Settings(data_dir=folder, **settings)  # type: ignore[arg-type]  # whatever the test gives


@pytest.mark.parametrize("engine", ["embedded", "cascade"])
def test_engines_that_hear_by_them_have_them_whatever_is_kept(tmp_path: Path, engine: str) -> None:
    assert wants_ears(house(tmp_path, keeps=False, weights=None, engine=engine))


@pytest.mark.parametrize("engine", ["embedded", "chroma"])
def test_a_plan_that_leads_by_language_has_them_beside_any_engine(tmp_path: Path, engine: str) -> None:
    settings = house(tmp_path, keeps=False, weights=None, engine=engine)
    assert wants_ears(settings, hears_languages=True)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("weights", ["whisper-tiny-en", "whisper-base"])
def test_another_engines_callers_are_written_down_where_a_route_keeps_it(
    tmp_path: Path, weights: str, elsewhere: bool
) -> None:
    engine = {"engine_url": ("ws://127.0.0.1:1",)} if elsewhere else {"engine": "chroma"}
    assert wants_ears(house(tmp_path, keeps=True, weights=weights, **engine))


def test_nobody_is_written_down_where_no_route_keeps_it(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert not wants_ears(house(tmp_path, keeps=False, weights="whisper-tiny-en", engine="chroma"))
    assert logs == []


def test_what_is_missing_for_it_is_said_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = house(tmp_path, keeps=True, weights=None, engine="chroma")
    with capture_logs() as logs:
        assert not wants_ears(settings)
    assert logs[0]["remedy"] == "voicegate models get whisper-tiny-en"
    monkeypatch.setattr(packages, "absent", lambda _: "ctranslate2")
    with capture_logs() as logs:
        assert not wants_ears(settings)
    assert "ctranslate2" in logs[0]["remedy"]


def test_who_wants_turns_to_end_by_words_has_them_beside_an_engine_that_keeps_none(tmp_path: Path) -> None:
    assert wants_ears(
        house(tmp_path, keeps=False, weights="whisper-tiny-en", engine="chroma", turns_by_words="on")
    )


def test_what_is_missing_for_turns_by_words_is_said(tmp_path: Path) -> None:
    settings = house(tmp_path, keeps=False, weights=None, engine="chroma", turns_by_words="on")
    with capture_logs() as logs:
        assert not wants_ears(settings)
    (line,) = logs
    assert (line["event"], line["remedy"]) == ("turns.no_ears", "voicegate models get whisper-tiny-en")
