"""What a test needs beside Python: said loudly when it is missing, an error where nothing may be missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path

import pytest

from consent.data_dir import default_data_dir
from consent.models.model_files import locked_model, models_dir

HANGS_S = 120.0
"""A test that waits so long hangs. No promise: those stand in the tests that keep them."""
SOUNDS = Path("/usr/share/asterisk/sounds")

MODELS = models_dir(
    Path(os.environ.get("VOICEGATE_DATA_DIR") or default_data_dir()),
    Path(os.environ["VOICEGATE_MODELS"]) if os.environ.get("VOICEGATE_MODELS") else None,
)
"""Where this machine keeps model files; read before a test hides the machine's settings."""


def missing(reason: str) -> None:
    """Skips with the reason; fails instead under VOICEGATE_TEST_STRICT (as .ci/run sets it)."""
    if os.environ.get("VOICEGATE_TEST_STRICT"):
        pytest.fail(f"missing: {reason}")
    pytest.skip(reason)


def need_program(name: str, package: str | None = None) -> str:
    """The program's path."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed (Debian: apt-get install {package or name})")
    assert path is not None
    return path


def need_package(name: str) -> None:
    """A package that only the extra `test` brings, and not for every machine."""
    if importlib.util.find_spec(name) is None:
        missing(f"the package {name} is not installed (pip install -e '.[test]')")


def need_sounds(voice: str = "en_US_f_Allison") -> Path:
    """Folder of real human prompts (Debian's asterisk-core-sounds packages, CC-BY-SA 3.0)."""
    folder = SOUNDS / voice
    if not folder.is_dir():
        missing(f"{folder} is not there (Debian: apt-get install asterisk-core-sounds-{voice[:2]}-wav)")
    return folder


def need_model(name: str) -> Path:
    """The directory of model files, which holds this one (`make test` fetches it)."""
    if not all(path.exists() for path in locked_model(name).paths(MODELS)):
        missing(f"the model file {name} is not in {MODELS}; fetch it with: voicegate models get {name}")
    return MODELS


def goldens() -> Path:
    """The golden checkpoints: beside the checkout, or where VOICEGATE_GOLDENS says. Never skipped: they are
    the engine's proof."""
    beside = Path(__file__).parents[1].parent / "shared" / "goldens"
    folder = Path(os.environ.get("VOICEGATE_GOLDENS") or beside)
    assert (folder / "chroma-a" / "model.safetensors").is_file(), (
        f"no goldens in {folder}; set VOICEGATE_GOLDENS to their directory"
    )
    return folder


def need_ipv6() -> None:
    """A loopback of IPv6. What a kernel without it lacks nobody can install, so this skips everywhere."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
