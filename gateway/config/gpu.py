"""What Chroma needs of a machine with an NVIDIA GPU besides packages, told without loading torch.

Triton compiles a small C program for each kernel when it is first used, so a C compiler and Python's headers
must be where the engine runs. And torch's CUDA needs a driver that is new enough.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

DRIVER: Final = Path("/proc/driver/nvidia/version")
"""Written by the driver, in a container too; not under WSL."""
_VERSION: Final = re.compile(r"\b(\d{3,})\.(\d+)(?:\.(\d+))?\b")
LEAST_DRIVERS: Final = {12: 525, 13: 580}
"""By CUDA's major version (NVIDIA's "CUDA Compatibility", minor version compatibility, table 1)."""
COMPAT: Final = Path("/usr/local")
"""Where NVIDIA's images have the libraries that let an older driver do (forward compatibility)."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing, and what to do."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def wanted(device: str) -> bool:
    """Whether an engine with that `VOICEGATE_CHROMA_DEVICE` is to run on a GPU here.

    Where torch finds a driver too old, it says that there is no GPU; "auto" does not ask for that.
    """
    return device.startswith("cuda") or (device == "auto" and DRIVER.exists() and torch_cuda() is not None)


def driver() -> tuple[int, ...] | None:
    """The driver's version, if it says one."""
    try:
        found = _VERSION.search(DRIVER.read_text())
    except OSError:
        return None
    return None if found is None else tuple(int(part or 0) for part in found.groups())


def torch_cuda() -> tuple[int, ...] | None:
    """The CUDA version that the installed torch is built for; None: for a CPU, or there is no torch."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    found = re.search(r"^cuda\b.*?=\s*'(\d+)\.(\d+)", text, re.MULTILINE)
    return None if found is None else tuple(map(int, found.groups()))


def compiler() -> str | None:
    """The C compiler that Triton takes: `CC`, or gcc, or clang."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def dotted(version: tuple[int, ...]) -> str:
    """A driver's version as NVIDIA writes it."""
    return ".".join(f"{part:02}" if k else str(part) for k, part in enumerate(version))


def lacking() -> Iterator[Lack]:
    """What this machine lacks for Chroma on a GPU."""
    if compiler() is None:
        yield Lack(
            "there is no C compiler, which Triton needs for the engine's kernels",
            "install gcc (apt-get install gcc), or name one in CC",
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        yield Lack(
            "Python's headers (Python.h) are missing, which Triton needs for the engine's kernels",
            f"install them (apt-get install {name})",
        )
    cuda, present = torch_cuda(), driver()
    if cuda is None:
        yield Lack(
            "the installed torch is built for a CPU",
            "install one that is built for CUDA (docs/engine.md), or set VOICEGATE_CHROMA_DEVICE=cpu",
        )
        return
    least = LEAST_DRIVERS.get(cuda[0])
    bridged = any(COMPAT.glob("cuda*/compat/**/libcuda.so*"))
    if least is not None and present is not None and present[0] < least and not bridged:
        yield Lack(
            f"the NVIDIA driver {dotted(present)} is too old: torch for CUDA {cuda[0]}.{cuda[1]} needs "
            f"{least} or newer",
            "install a newer driver, or a torch for an older CUDA",
        )
