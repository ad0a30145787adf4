"""Model files that this program reads and does not carry: which there are, and reading them.

`models.lock` names each file, the wheel it comes from, its licence and its hashes.
`consent.models.model_fetch` brings a file into a directory: `models/` in the data directory, or the one that
VOICEGATE_MODELS names. A file's hash is checked at every reading, before a byte of it is parsed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from consent.errors import ModelFileError, ModelFileMissing

LOCK: Final = Path(__file__).with_name("models.lock")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One table of `models.lock`. Sizes are bytes, hashes SHA-256 in hexadecimal."""

    name: str
    what: str
    package: str
    version: str
    licence: str
    wheel: str
    wheel_size: int
    wheel_sha256: str
    path: str
    """the member of the wheel"""
    size: int
    sha256: str
    default: bool = False

    @property
    def file_name(self) -> str:
        """What the file is called in a directory of model files."""
        return self.name + PurePosixPath(self.path).suffix

    @property
    def requirement(self) -> str:
        """How pip names the wheel."""
        return f"{self.package}=={self.version}"

    def read(self, directory: Path) -> bytes:
        """The file's content, its hash checked.

        Raises `ModelFileMissing` when it is not in `directory`, `ModelFileError` when it is another file.
        """
        path = directory / self.file_name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe shall not keep us waiting
            with os.fdopen(fd, "rb") as file:
                state = os.fstat(fd)
                is_it = stat.S_ISREG(state.st_mode) and state.st_size == self.size
                content = file.read(self.size) if is_it else b""
        except FileNotFoundError:
            raise ModelFileMissing(
                f"the model file {self.name} is not in {directory}; fetch it with: "
                f"voicegate models get {self.name}"
            ) from None
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelFileError(
                f"{path} is not the file that models.lock names; fetch it anew with: "
                f"voicegate models get {self.name}"
            )
        return content


@lru_cache(maxsize=1)
def model_files() -> dict[str, ModelFile]:
    """All files of `models.lock`, by name."""
    return {name: ModelFile(name, **table) for name, table in tomllib.loads(LOCK.read_text()).items()}


def model_file(name: str) -> ModelFile:
    """Raises `ModelFileError` for a name that `models.lock` does not have."""
    try:
        return model_files()[name]
    except KeyError:
        names = ", ".join(model_files())
        raise ModelFileError(f"there is no model file {name!r}; there are: {names}") from None


def models_dir(data_dir: Path, named: Path | None) -> Path:
    """Where model files lie: the directory that the operator named, else `models` in the data directory."""
    return named.expanduser().absolute() if named is not None else data_dir / "models"
