"""The wheel, installed where no file of the checkout can be seen, starts and takes a call.

It is installed twice: by pip in an empty environment, and by pipx as the README says. Everything is run from
`/`, without PYTHONPATH and without this machine's settings. Needs the package index.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model import __version__
from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import free_port
from tests.wheel import ROOT, build_wheel

pytestmark = pytest.mark.prove

READY_WITHIN_S = 120.0
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


class Installed:
    """One installation: its Python, its command, and a data directory of its own."""

    def __init__(self, python: Path, command: Path, folder: Path) -> None:
        self.python, self.command, self.folder = python, command, folder
        self.sip_port, self.http_port = free_port(), free_port()
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        self.environ = outside() | {
            "VOICEGATE_DATA_DIR": str(folder / "data"),
            "VOICEGATE_SIP_PORT": str(self.sip_port),
            "VOICEGATE_HTTP_PORT": str(self.http_port),
            "XDG_RUNTIME_DIR": str(runtime),
        }

    def run(self, *argv: str | Path, within_s: float = 300) -> str:
        """What it prints; it must end well."""
        done = subprocess.run(
            argv, cwd="/", env=self.environ, capture_output=True, text=True, timeout=within_s
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def voicegate(self, *words: str) -> str:
        return self.run(self.command, *words)


def outside() -> dict[str, str]:
    """This environment without what would lead back to the checkout, or to a gateway's settings."""
    ours = ("VOICEGATE_", "PYTHON", "VIRTUAL_ENV", "PIPX_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def sh(line: str, cwd: Path, **environ: Path) -> None:
    """A command line as a person types it."""
    given = outside() | {name: str(value) for name, value in environ.items()}
    done = subprocess.run(["sh", "-c", line], cwd=cwd, env=given, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `dist` with the wheel alone, in a folder that is not the checkout."""
    wheel = build_wheel(tmp_path_factory.mktemp("build"))
    folder = tmp_path_factory.mktemp("elsewhere") / "dist"
    folder.mkdir()
    wheel.rename(folder / wheel.name)
    return folder


@pytest.fixture(scope="module", params=["pip", "pipx"])
def installed(
    request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    folder = tmp_path_factory.mktemp(request.param)
    python = shlex.quote(sys.executable)
    if request.param == "pip":
        install = f"venv/bin/pip install --quiet {dist}/*.whl"
        sh(f"{python} -m venv venv && {install}", folder)
        environment = folder / "venv"
        command = environment / "bin" / "voicegate"
    else:
        (pipx,) = EXTRAS["prove"]
        install = shlex.join(["tool/bin/pip", "install", "--quiet", pipx])
        sh(f"{python} -m venv tool && {install}", folder)
        places = {name: folder / name for name in ("PIPX_HOME", "PIPX_BIN_DIR", "PIPX_MAN_DIR")}
        install = f"{folder}/tool/bin/pipx install dist/*.whl"
        sh(install, dist.parent, **places)
        environment = folder / "PIPX_HOME" / "venvs" / "voicegate-telephony"
        command = folder / "PIPX_BIN_DIR" / "voicegate"
    return Installed(environment / "bin" / "python", command, folder)


@pytest.fixture(scope="module")
def gateway_runs(installed: Installed) -> Iterator[Installed]:
    """While the gateway runs, started by the installed command."""
    log = installed.folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [installed.command, "run"], cwd="/", env=installed.environ, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while b"Ctrl-C stops it" not in log.read_bytes():
            assert process.poll() is None, log.read_text(errors="replace")[-8000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-8000:]
            time.sleep(0.1)
        yield installed
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text(errors="replace")[-8000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_nothing_of_the_checkout_is_in_sight(installed: Installed) -> None:
    script = (
        "import json, sys, importlib.util as util, gateway, model, consent, watermark\n"
        "ours = [module.__file__ for module in (gateway, model, consent, watermark)]\n"
        "names = ('tests', 'benchmarks', 'silero_vad', 'resemblyzer', 'torch', 'voicegate')\n"
        "print(json.dumps([ours, sys.path, [name for name in names if util.find_spec(name)]]))\n"
    )
    files, path, others = json.loads(installed.run(installed.python, "-c", script))
    assert all(Path(file).is_relative_to(installed.folder) for file in files)
    assert not any(Path(place).is_relative_to(ROOT) for place in path if place)
    assert others == []


def test_the_version(installed: Installed) -> None:
    assert installed.voicegate("--version") == f"voicegate, version {__version__}\n"


def test_the_doctor_finds_all_well(installed: Installed) -> None:
    found = {row["what"]: row for row in json.loads(installed.voicegate("doctor", "--json"))}
    assert found["voice activity"]["state"] == "ok"
    assert found["embedded engine"]["state"] == "ok"
    assert str(installed.folder) in found["dialplans"]["text"], "the shipped dialplans came with the wheel"
    assert "demo" in found["dialplans"]["text"]
    away = found["model file speaker"]
    assert (away["state"], away["fix"]) == ("warn", "voicegate models get speaker")


def test_a_remedy_names_the_wheel_that_was_installed(installed: Installed, dist: Path) -> None:
    (wheel,) = dist.iterdir()
    remedy = f"-m pip install '{dist}/{wheel.stem}.whl[chroma]'"
    done = subprocess.run(
        [installed.command, "engine", "bench"], cwd="/", env=installed.environ, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert remedy in done.stderr


def test_model_files_are_fetched(installed: Installed) -> None:
    installed.voicegate("models", "get", "--default")
    kept = installed.folder / "data" / "models" / "speaker.pt"
    assert kept.stat().st_mode & 0o077 == 0
    assert f"speaker is here: {kept}" in installed.voicegate("models", "get", "speaker")
    assert "speaker      resemblyzer-0.1.4/" in installed.voicegate("voice", "checks")


def test_a_call_is_answered(gateway_runs: Installed, tmp_path: Path) -> None:
    record = tmp_path / "heard.wav"
    said = gateway_runs.voicegate(
        "call", "--json", "--duration", "8", "--record", str(record),
        f"sip:demo@127.0.0.1:{gateway_runs.sip_port}",
    )  # fmt: skip
    report = json.loads(said)
    assert report["answered"], report
    with wave.open(str(record)) as file:
        assert file.getnframes() / file.getframerate() > 5
    assert np.sum(loudness(record) > 0.005) * 0.02 > 2, "the disclosure and the greeting"
