"""Remedies install this program from where it came, never by a name that is somebody else's to take."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import pytest

from gateway.config import remedy


def installed_from(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if pip had installed the wheel and written down where it found it."""
    info = tmp_path / "voicegate_telephony-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voicegate-telephony\nVersion: 9.9\n")
    (info / "direct_url.json").write_text(json.dumps({"url": url, "archive_info": {}}))
    found = importlib.metadata.Distribution.at(info)
    monkeypatch.setattr(remedy, "SOURCE", tmp_path)
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: found)


def test_in_a_checkout_the_checkout_is_installed() -> None:
    root = Path(__file__).resolve().parents[3]
    assert shlex.split(remedy.install_with("chroma")) == [
        sys.executable, "-m", "pip", "install", "-e", f"{root}[chroma]",
    ]  # fmt: skip
    assert shlex.split(remedy.install_again()) == ["make", "-C", str(root), "clean", "run"]


def test_from_a_wheel_that_wheel_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed_from("file:///srv/my%20wheels/voicegate_telephony-9.9-py3-none-any.whl", monkeypatch, tmp_path)
    wheel = "/srv/my wheels/voicegate_telephony-9.9-py3-none-any.whl"
    assert shlex.split(remedy.install_with("plot"))[-1] == f"{wheel}[plot]"
    assert shlex.split(remedy.install_again())[-2:] == ["--force-reinstall", wheel]


@pytest.mark.parametrize("url", ["https://example.com/voicegate.whl", "file:///srv/source"])
def test_from_anywhere_else_the_wheel_is_asked_for(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed_from(url, monkeypatch, tmp_path)
    assert shlex.split(remedy.install_with("plot"))[-1] == "PATH-TO-THE-WHEEL[plot]"
