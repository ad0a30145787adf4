"""gpu-check runs whole on a CPU, survives what kills a part, and goes on where it was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from model.chroma.tools import gpu_check, gpu_parts
from model.chroma.tools.checkpoint_check import understood
from model.chroma.tools.gpu_job import Job
from tests.needs import HANGS_S

NAMES = [part.name for part in gpu_check.PARTS]


def command(out: Path, *argv: str) -> Result:
    argv = ("engine", "gpu-check", "--device", "cpu", "--out", str(out), *argv)
    return CliRunner().invoke(cli, argv, prog_name="voicegate")


def parts(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "gpu-check.json").read_text())["parts"]
    return found


IN_PROCESSES = ("device", "kernels", "checkpoint", "official")
"""Of the others, `bench`, `gaps` and `admission` run below without a process of their own, and what `golden`
and `graphs` do is proved by `test_golden` and `test_replays`. `make prove-gpu-check` has all."""


@pytest.mark.long("each part in a process of its own that imports torch, kernels interpreted")
def test_it_runs_on_a_cpu(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = tuple(part for part in gpu_check.PARTS if part.name in IN_PROCESSES)
    monkeypatch.setattr(gpu_check, "PARTS", some)
    result = command(tmp_path, "--golden", str(golden), "--checkpoint", str(golden), "--seconds", "1500")
    assert result.exit_code == 0, result.output
    found = parts(tmp_path)
    assert list(found) == [*IN_PROCESSES]
    assert {name: entry["status"] for name, entry in found.items()} == {
        **dict.fromkeys(IN_PROCESSES, "passed"),
        "official": "missing",
    }
    kernels = found["kernels"]["found"]
    for kind in (
        "step: ",
        "prefill: ",
        "gate, ",
        "sum and norm, ",
        "draw of ",
        "int8 weights, ",
        "fp8 weights, ",
    ):
        assert any(name.startswith(kind) for name in kernels), kind
    assert all(one["passed"] for one in kernels.values())
    assert found["checkpoint"]["found"]["names and shapes"]["tensors"] == 264
    assert found["checkpoint"]["found"]["speech"]["seconds"] > 1
    assert (tmp_path / "speech.wav").read_bytes().startswith(b"RIFF")


def found_by(part: str, golden: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """What a part of `gpu_parts` tells, asked in this process; nothing of it is open or has failed."""
    told = io.StringIO()
    asked = gpu_check.CheckAsked(device="cpu", golden=str(golden), folder=str(folder))
    gpu_parts.WORK[part](Job(asked, {}, time.monotonic() + 1500, told))
    found = {line["name"]: line["found"] for line in map(json.loads, told.getvalue().splitlines())}
    assert not [one for one in found.values() if one.get("under way") or one.get("passed") is False], found
    return found


def test_every_part_has_its_work() -> None:
    assert list(gpu_parts.WORK) == NAMES


def test_frames_of_many_calls_are_timed(golden: Path, tmp_path: Path) -> None:
    assert found_by("bench", golden, tmp_path)["4 calls"]["p50 ms"] > 0


def test_gaps_are_counted_from_kernel_to_kernel(golden: Path, tmp_path: Path) -> None:
    step = found_by("gaps", golden, tmp_path)["steps of 1"]
    assert step["words nodes"] > step["pairs nodes"] > 100
    assert step["words gap us"] > 0


def test_admission_is_tried(golden: Path, tmp_path: Path) -> None:
    auto = found_by("admission", golden, tmp_path)["auto"]
    assert len(auto["points"]) >= 1
    assert auto["conversations"] >= 1


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "PROGRAM", "tests.model.chroma.tools.dying_parts")


def test_a_part_that_dies_goes_on_behind_what_killed_it(
    dying: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thaw").touch()
    result = command(tmp_path)
    assert result.exit_code == 1
    found = parts(tmp_path)
    assert {name: found[name]["status"] for name in NAMES} == {
        **dict.fromkeys(NAMES, "passed"),
        "kernels": "failed", "golden": "failed", "bench": "broken", "official": "missing",
    }  # fmt: skip
    assert found["kernels"]["found"] == {
        "first": {"passed": True},
        "deadly": {"passed": False, "why": "an illegal memory access (signal SIGKILL)"},
        "third": {"passed": True},
    }
    assert found["kernels"]["why"] == "1 of 3"
    assert found["bench"]["why"] == "RuntimeError: no such device (exit status 1)"
    assert "deadly: FAILS" in result.output
    done = (tmp_path / "done").read_text().split("\n")
    before = (tmp_path / "gpu-check.json").stat().st_mtime_ns
    again = command(tmp_path)
    assert again.exit_code == 1
    assert "official: " in again.output, "what was missing is looked for again"
    assert "bench: " not in again.output, "what is known is not done again"
    assert (tmp_path / "gpu-check.json").stat().st_mtime_ns > before
    assert (tmp_path / "done").read_text().split("\n") == done, "nothing was done twice"
    command(tmp_path, "--again", "golden")
    assert (tmp_path / "done").read_text().split("\n") == [*done[:-1], "golden wrong", ""]
    command(tmp_path, "--fresh")
    assert (tmp_path / "done").read_text().count("kernels first") == 2


def test_a_part_that_hangs_is_ended_and_the_next_runs(
    dying: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [
        gpu_check.Part(part.name, part.what, 3.0 if part.name == "graphs" else part.limit_s, part.of)
        for part in gpu_check.PARTS
    ]
    monkeypatch.setattr(gpu_check, "PARTS", tuple(short))
    command(tmp_path)
    found = parts(tmp_path)
    assert found["graphs"]["status"] == "late"
    assert found["graphs"]["found"] == {}
    assert found["gaps"]["status"] == "passed"
    assert "3 s were up" in found["graphs"]["why"]


def test_a_killed_run_goes_on_where_it_was(dying: None, tmp_path: Path) -> None:
    program = (
        "from model.chroma.tools import gpu_check; "
        "gpu_check.PROGRAM = 'tests.model.chroma.tools.dying_parts'; "
        f"gpu_check.gpu_check(['--device', 'cpu', '--out', {str(tmp_path)!r}])"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        until = time.monotonic() + HANGS_S
        while "graphs hangs" not in (tmp_path / "done").read_text() if (tmp_path / "done").exists() else True:
            assert time.monotonic() < until
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    finally:
        run.kill()
        run.wait()
    assert parts(tmp_path)["graphs"]["status"] == "under way"
    (tmp_path / "thaw").touch()
    command(tmp_path)
    done = (tmp_path / "done").read_text()
    assert done.count("kernels first") == 1
    assert done.count("graphs hangs") == 2
    assert parts(tmp_path)["graphs"]["status"] == "passed"


def test_another_golden_is_another_question(dying: None, tmp_path: Path) -> None:
    (tmp_path / "thaw").touch()
    command(tmp_path)
    command(tmp_path, "--golden", str(tmp_path))
    done = (tmp_path / "done").read_text()
    assert done.count("golden wrong") == 2
    assert done.count("graphs hangs") == 2
    assert done.count("kernels first") == 1


def test_without_time_it_says_that_it_goes_on_later(
    dying: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thaw").touch()
    monkeypatch.setattr(gpu_check, "LEAST_S", 1e6)
    result = command(tmp_path)
    assert result.exit_code == 1
    assert "run it again" in result.output
    assert result.output.count("not yet") == len(NAMES)


def test_mistakes_are_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gpu-check.json").write_text("{}")
    for out, said in ((tmp_path / "file" / "x", "cannot be made"), (tmp_path, "is not what an earlier")):
        result = command(out)
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert said in result.output
    assert "go together" in command(tmp_path, "--clip", "x").output


def test_what_is_understood_is_words_in_their_order() -> None:
    assert understood("The train leaves at nine.", "the train leaves at nine") == 1
    assert understood("The train leaves at nine.", "The rain leaves nine") == 3 / 5
    assert understood("The train leaves at nine.", "nine nine nine") == 1 / 5
    assert understood("The train leaves.", "") == 0


def test_a_wrong_kernel_is_found() -> None:
    """By its numbers, and by what it leaves unwritten."""
    pytest.importorskip("triton")
    from model.chroma.tools.kernel_check import near, poisoned

    exact = torch.ones(3, dtype=torch.float64)
    assert near(torch.ones(3), exact)["passed"]
    assert not near(torch.tensor([1, 1, 1.001]), exact)["passed"]
    with poisoned():
        left = torch.empty(3)
        whole = torch.empty(2, dtype=torch.long)
    left[:2] = 1
    assert not near(left, exact)["passed"]
    assert whole[0] < -(1 << 61)
    assert torch.empty_like(left) is not None
