"""The proof: what the official code answered, this engine answers, one-shot and streamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import cli

CASES = ("audio_end", "basic", "early_text_end", "long", "multi_turn")


def command(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["engine", *argv], prog_name="voicegate")


def test_every_case_passes_in_both_forms(golden: Path) -> None:
    result = command("verify", str(golden))
    assert result.exit_code == 0, result.output
    assert "10 of 10 runs pass" in result.output
    for case in CASES:
        assert result.output.count(f"\n{case} ") == 2, case


def altered(golden: Path, to: Path, **changes: Callable[[Any], Any]) -> Path:
    """The golden with one case, in which some arrays are changed."""
    shutil.copy(golden / "config.json", to)
    (to / "model.safetensors").symlink_to(golden / "model.safetensors")
    arrays = dict(np.load(golden / "case-early_text_end.npz"))
    for key, change in changes.items():
        arrays[key] = change(arrays[key].copy())
    np.savez(to / "case-early_text_end.npz", **arrays)
    return to


def put(index: tuple[int, ...], by: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[index] += by
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("text_tokens", put((2,), 1)),
        ("frames", put((30, 5), 1)),
        ("ref_codes", put((3, 4), 1)),
        ("backbone_step_lengths", put((1,), 1)),
        ("thinker_logits", put((3, 7), 0.002)),
        ("backbone_logits", put((20, 3), 0.002)),
        ("decoder_logits", put((20, 3, 9), 0.002)),
        ("thinker_hidden_every16", put((1, 1), 0.002)),
        ("wave", put((4000,), 0.0002)),
        ("frames", lambda frames: frames[:-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_difference_fails(golden: Path, tmp_path: Path, key: str, change: Callable[[Any], Any]) -> None:
    result = command("verify", str(altered(golden, tmp_path, **{key: change})))
    assert result.exit_code == 1
    assert "0 of 2 runs pass" in result.output


def test_an_unchanged_copy_passes(golden: Path, tmp_path: Path) -> None:
    assert command("verify", str(altered(golden, tmp_path))).exit_code == 0


def test_bfloat16_agrees_in_distribution(golden: Path, tmp_path: Path) -> None:
    result = command("verify", str(golden), "--dtype", "bfloat16", "--case", "early_text_end")
    assert result.exit_code == 0, result.output
    assert "2 of 2 runs pass" in result.output
    other = altered(golden, tmp_path, decoder_logits=lambda logits: logits[:, :, ::-1])
    assert command("verify", str(other), "--dtype", "bfloat16").exit_code == 1


def test_all_cases_at_once_pass_and_a_difference_fails(golden: Path, tmp_path: Path) -> None:
    result = command("verify", str(golden), "--batched")
    assert result.exit_code == 0, result.output
    assert "5 of 5 runs pass" in result.output
    other = altered(golden, tmp_path, thinker_logits=put((3, 7), 0.002))
    assert command("verify", str(other), "--batched").exit_code == 1


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_rounded_weights_agree_as_far_as_was_measured(golden: Path, weights: str) -> None:
    result = command("verify", str(golden), "--batched", "--weights", weights, "--case", "early_text_end")
    assert result.exit_code == 0, result.output
    assert "1 of 1 runs pass" in result.output


def test_keys_and_values_in_bytes_agree_as_far_as_was_measured(golden: Path) -> None:
    result = command("verify", str(golden), "--batched", "--kv", "fp8", "--case", "early_text_end")
    assert result.exit_code == 0, result.output
    assert "1 of 1 runs pass" in result.output
    figures = result.output.splitlines()[2].split()
    assert float(figures[4]) > 1e-3, "they were rounded, and that shows"


def test_mistakes_are_said_in_a_line(tmp_path: Path, golden: Path) -> None:
    for argv, said in (
        (("verify", str(tmp_path / "away")), "is not a directory"),
        (("verify", str(tmp_path)), "config.json: No such file"),
        (("verify", str(golden), "--case", "none"), "has no case none"),
        (("inspect", "no such/thing/at all"), "neither a directory nor a hub id"),
    ):
        result = command(*argv)
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert said in result.output
        assert result.output.count("\n") == 1


def test_inspect_shows_parts_sizes_and_memory(golden: Path) -> None:
    result = command("inspect", str(golden), "--conversations", "3")
    assert result.exit_code == 0, result.output
    for part in (
        "audio encoder",
        "thinker layers",
        "shared audio table",
        "backbone",
        "decoder",
        "Mimi decoder",
    ):
        assert f"\n{part} " in result.output
    assert "not loaded" in next(
        line for line in result.output.splitlines() if line.startswith("visual tower")
    )
    assert "264 tensors" in result.output
    assert "3 conversation(s)" in result.output
    assert "a thinker position 256 B, a backbone position 256 B" in result.output
    result = command("inspect", str(golden), "--kv", "fp8")
    assert "a thinker position 128 B, a backbone position 128 B" in result.output
