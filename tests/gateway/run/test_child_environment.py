"""What a process of the house finds in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import Settings
from gateway.run.child_environment import environment
from model import json_log
from model.ears import SOCKET_VARIABLE
from model.log_ear import EAR_VARIABLE


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VOICEGATE_REDIS_URL", "VOICEGATE_CHROMA", "VOICEGATE_MODELS", SOCKET_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_what_is_not_set_is_not_told(tmp_path: Path) -> None:
    told = environment(Settings(data_dir=tmp_path), "boot", None)
    assert (told["VOICEGATE_BOOT_TOKEN"], told["VOICEGATE_DATA_DIR"]) == ("boot", str(tmp_path))
    assert told["OMP_NUM_THREADS"] == "1"
    for name in ("VOICEGATE_REDIS_URL", "VOICEGATE_CHROMA", SOCKET_VARIABLE):
        assert name not in told


def test_settings_of_a_file_reach_the_engine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_OUR_OWN", "kept")
    settings = Settings(
        data_dir=tmp_path,
        redis_url="redis://:secret@h/0",
        chroma="/weights",
        engine_calls=3,
        log_level="debug",
    )
    told = environment(settings, "boot", tmp_path / "ears", tmp_path / "log")
    assert told["OF_OUR_OWN"] == "kept"
    assert (told["VOICEGATE_REDIS_URL"], told["VOICEGATE_CHROMA"]) == ("redis://:secret@h/0", "/weights")
    assert (told["VOICEGATE_ENGINE_CALLS"], told[SOCKET_VARIABLE]) == ("3", str(tmp_path / "ears"))
    assert told[json_log.LEVEL_VARIABLE] == "debug"
    assert told[EAR_VARIABLE] == str(tmp_path / "log")
