"""What Chroma needs of a GPU's machine is missed before anything starts, and torch is not loaded for that."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.doctor import doctor_libraries
from gateway.config import gpu
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.run import preflight

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)\n"
OLD = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 2025\nGCC version: 12.2.0"


class Machine:
    """One with a GPU, and all that it needs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._folder = folder
        self._torch = folder / "torch"
        self._torch.mkdir()
        self.driver(OPEN)
        self.torch("cuda: Optional[str] = '13.0'")
        self.programs("gcc", "clang")
        (folder / "Python.h").touch()
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder))
        monkeypatch.setattr(gpu, "COMPAT", folder)
        monkeypatch.delenv("CC", raising=False)

    def driver(self, said: str | None) -> None:
        file = self._folder / "version"
        file.unlink(missing_ok=True)
        if said is not None:
            file.write_text(said)
        self._patch.setattr(gpu, "DRIVER", file)

    def torch(self, line: str) -> None:
        (self._torch / "version.py").write_text(
            f"__version__ = '2.13.0'\ndebug = False\n{line}\nhip = None\n"
        )
        spec: Any = type("Spec", (), {"origin": str(self._torch / "__init__.py")})
        self._patch.setattr(gpu, "find_spec", lambda _: spec)

    def programs(self, *names: str) -> None:
        self._patch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None)

    def bridge(self) -> None:
        (self._folder / "cuda-13.0" / "compat").mkdir(parents=True)
        (self._folder / "cuda-13.0" / "compat" / "libcuda.so.1").touch()

    def without_headers(self) -> None:
        (self._folder / "Python.h").unlink()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def lacks() -> list[str]:
    return [lack.what for lack in gpu.lacking()]


def test_nothing_is_missed_where_nothing_is_missing(machine: Machine) -> None:
    assert lacks() == []
    assert gpu.driver() == (580, 95, 5)
    preflight.check_gpu("auto")
    preflight.check_gpu("cuda:1")


def test_a_compiler_is_missed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.programs("clang")
    assert lacks() == []
    machine.programs()
    assert lacks() == ["there is no C compiler, which Triton needs for the engine's kernels"]
    with pytest.raises(
        StartError, match=r"^VOICEGATE_ENGINE=chroma on a GPU: there is no C compiler.*apt-get"
    ):
        preflight.check_gpu("auto")
    monkeypatch.setenv("CC", "/opt/cc")
    assert lacks() == []


def test_headers_are_missed(machine: Machine) -> None:
    machine.without_headers()
    assert lacks() == ["Python's headers (Python.h) are missing, which Triton needs for the engine's kernels"]


@pytest.mark.parametrize(("cuda", "old"), [("13.0", True), ("12.8", False), ("14.1", False)])
def test_a_driver_that_is_too_old_is_missed(machine: Machine, cuda: str, old: bool) -> None:
    machine.torch(f"cuda: Optional[str] = '{cuda}'")
    machine.driver(OLD)
    said = "the NVIDIA driver 570.124.06 is too old: torch for CUDA 13.0 needs 580 or newer"
    assert lacks() == ([said] if old else [])
    machine.bridge()
    assert lacks() == [], "NVIDIA's libraries for older drivers are there"
    machine.driver(None)
    assert lacks() == [], "under WSL none is told"


def test_a_torch_for_a_cpu_is_missed_by_who_names_a_gpu(machine: Machine) -> None:
    machine.torch("cuda: Optional[str] = None")
    preflight.check_gpu("auto")
    preflight.check_gpu("cpu")
    with pytest.raises(StartError, match="the installed torch is built for a CPU"):
        preflight.check_gpu("cuda")


def test_nobody_without_a_gpu_needs_a_compiler(machine: Machine) -> None:
    machine.driver(None)
    machine.programs()
    preflight.check_gpu("auto")


def test_the_doctor_says_it(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_libraries, "probe", lambda _: {"version": "2", "device": "a GPU"})
    settings = Settings(engine="chroma", chroma="FlashLabs/Chroma-4B", data_dir=tmp_path / "data")
    found = {one.what: one for one in doctor_libraries.chroma(settings)}["Chroma on a GPU"]
    assert (found.state, found.text) == ("ok", "NVIDIA driver 580.95.05, C compiler /usr/bin/gcc")
    machine.programs()
    found = {one.what: one for one in doctor_libraries.chroma(settings)}["Chroma on a GPU"]
    assert (found.state, found.fix) == ("fail", "install gcc (apt-get install gcc), or name one in CC")


def test_torch_is_not_loaded_for_that() -> None:
    script = "import sys; from gateway.config import gpu; list(gpu.lacking()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
