"""The wheel carries what a gateway needs, says what it needs beside that, and carries nothing else.

That it starts and takes a call is proved in `tests/prove/test_wheel_runs.py`.
"""

from __future__ import annotations

import email
import hashlib
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from consent.silero import network
from gateway.config.remedy import DISTRIBUTION
from model import __version__
from tests.wheel import ROOT, build_wheel

INFO = f"voicegate_telephony-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))


def test_its_name_is_its_own_and_its_command_stays(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert Path(str(wheel.filename)).name == f"voicegate_telephony-{__version__}-py3-none-any.whl"
    assert Path(str(wheel.filename)).name in (ROOT / "README.md").read_text()
    assert metadata["Name"] == DISTRIBUTION
    assert metadata["Version"] == __version__
    assert b"voicegate = gateway.cli.main:main" in wheel.read(f"{INFO}/entry_points.txt")


def test_it_says_its_licences_and_carries_them(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "GPL-3.0-or-later AND MIT AND Apache-2.0"
    names = metadata.get_all("License-File", [])
    assert set(names) == {"LICENSE", "consent/silero/LICENSE", "model/meaning/LICENSE"}
    for name in names:
        assert wheel.read(f"{INFO}/licenses/{name}") == (ROOT / name).read_bytes()


def test_it_needs_what_pyproject_says_and_no_package_for_the_sake_of_a_file(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [name for name in metadata.get_all("Requires-Dist", []) if "extra ==" not in name]
    assert sorted(needed) == sorted(project["dependencies"])
    whole = " ".join(metadata.get_all("Requires-Dist", [])).lower()
    assert "silero" not in whole
    assert "resemblyzer" not in whole
    assert not any(name.startswith("torch") for name in needed)


@pytest.mark.parametrize(
    "name",
    [
        "dialplans/10-demo.toml",
        "dialplans/20-after-hours.toml",
        "gateway/front/http/console/index.html",
        "gateway/front/http/console/call.js",
        "gateway/front/http/console/console.css",
        "gateway/front/http/console/icon.svg",
        "consent/statements/lexicon.toml",
        "consent/models/models.lock",
        "consent/checks/baseline.json",
        "consent/silero/silero_vad.onnx",
        "consent/silero/LICENSE",
        "model/chroma/network/chroma-4b.json",
        "watermark/public.html",
        "gateway/py.typed",
        "model/py.typed",
        "consent/py.typed",
        "watermark/py.typed",
    ],
)
def test_it_carries(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.read(name) == (ROOT / name).read_bytes()


def test_it_carries_all_of_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    ours = ("gateway", "model", "consent", "watermark", "dialplans")
    wanted = {
        str(path.relative_to(ROOT))
        for name in ours
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".gitkeep"
    }
    assert {name for name in wheel.namelist() if not name.startswith(INFO)} == wanted


def test_the_network_in_it_is_the_known_one(wheel: zipfile.ZipFile) -> None:
    assert hashlib.sha256(wheel.read("consent/silero/silero_vad.onnx")).hexdigest() == network.SHA256
