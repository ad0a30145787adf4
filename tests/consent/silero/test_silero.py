"""The network that comes with the program is the file that its authors made, and only that file is opened."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from consent.errors import ModelFileError
from consent.silero import network
from consent.silero.onnx_file import constants


def test_the_file_is_the_known_one_and_its_licence_lies_beside_it() -> None:
    assert hashlib.sha256(network.PATH.read_bytes()).hexdigest() == network.SHA256
    licence = network.PATH.with_name("LICENSE").read_text()
    assert licence.startswith("MIT License")
    assert "Silero Team" in licence


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_it_judges_as_the_library_that_runs_such_files_does(rate_hz: int, count: int) -> None:
    """Over a second of speech-like noise, with the state that each leaves itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        network.read_network(), options, providers=["CPUExecutionProvider"]
    )
    ours, rng = network.open_network(rate_hz), np.random.default_rng(rate_hz + count)
    state = theirs = np.zeros((2, count, network.STATE), np.float32)
    for turn in range(32):
        sound = rng.standard_normal((count, rate_hz * 9 // 250)) * 0.3 * np.sin(turn / 3)
        heard = np.cumsum(sound, axis=1).astype(np.float32) / 10
        answer, state = ours.judge(heard, state)
        expected, theirs = session.run(
            None, {"input": heard, "state": theirs, "sr": np.array(rate_hz, np.int64)}
        )
        assert answer == pytest.approx(expected[:, 0], abs=2e-4)
        assert state == pytest.approx(theirs, abs=2e-3)


def test_whatever_comes_is_a_probability() -> None:
    ours = network.open_network(8_000)
    state = np.zeros((2, 4, network.STATE), np.float32)
    loud = np.stack([np.full(288, level, np.float32) for level in (0, 1, 1e6, -1e6)])
    for _ in range(20):
        answer, state = ours.judge(loud, state)
        assert ((answer >= 0) & (answer <= 1)).all()
        assert np.isfinite(state).all()


def test_a_file_of_another_kind_is_an_error() -> None:
    whole = network.read_network()
    for content in (whole[:1000], b"\x0b", b"\xff" * 20, whole[1:]):
        with pytest.raises(ModelFileError, match="not an ONNX file"):
            constants(content)


def test_another_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATH", tmp_path / "silero_vad.onnx")
    with pytest.raises(ModelFileError, match="No such file"):
        network.open_network(8_000)
    (tmp_path / "silero_vad.onnx").write_bytes(b"another network")
    with pytest.raises(ModelFileError, match="is not the file that came with voicegate"):
        network.open_network(8_000)


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
