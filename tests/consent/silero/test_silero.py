"""The network that comes with the program is the file that its authors made, and only that file is opened."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from consent.errors import ModelFileError
from consent.silero import network


def test_the_file_is_the_known_one_and_its_licence_lies_beside_it() -> None:
    assert hashlib.sha256(network.PATH.read_bytes()).hexdigest() == network.SHA256
    licence = network.PATH.with_name("LICENSE").read_text()
    assert licence.startswith("MIT License")
    assert "Silero Team" in licence


def test_the_network_takes_sound_state_and_rate() -> None:
    session = network.open_network()
    assert [entry.name for entry in session.get_inputs()] == ["input", "state", "sr"]
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_another_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATH", tmp_path / "silero_vad.onnx")
    with pytest.raises(ModelFileError, match="No such file"):
        network.open_network()
    (tmp_path / "silero_vad.onnx").write_bytes(b"another network")
    with pytest.raises(ModelFileError, match="is not the file that came with voicegate"):
        network.open_network()


def test_nothing_imports_the_packages_that_the_files_come_from() -> None:
    """They may be installed beside us; hearing must not depend on it, nor bring torch."""
    script = (
        "import sys\n"
        "for name in ('silero_vad', 'resemblyzer', 'torch'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from consent.checks.sound import voice_activity\n"
        "from gateway.hall.media.audio import VoiceActivity\n"
        "import consent.checks.speaker\n"
        "VoiceActivity(1); print(voice_activity(np.zeros(16_000, np.float32)).max() < 0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
