"""A toy checkpoint is written anywhere, has the official names, and proves streaming against one-shot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from model.chroma.network import checkpoint, config
from model.chroma.tools import bench, golden


def command(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["engine", *argv], prog_name="voicegate")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("toys") / "toy"
    result = command("toy", str(directory))
    assert result.exit_code == 0, result.output
    assert "the cases one_turn, two_turns, long" in result.output
    return directory


def test_every_case_is_the_same_one_shot_and_streamed(written: Path) -> None:
    result = command("verify", str(written))
    assert result.exit_code == 0, result.output
    assert "6 of 6 runs pass" in result.output


@pytest.mark.parametrize(
    "how", [(), ("--weights", "int8"), ("--dtype", "bfloat16")], ids=["float32", "int8", "bfloat16"]
)
def test_all_cases_at_once_pass(written: Path, how: tuple[str, ...]) -> None:
    result = command("verify", str(written), "--batched", *how)
    assert result.exit_code == 0, result.output
    assert "3 of 3 runs pass" in result.output


@pytest.mark.parametrize("key", ["text_tokens", "frames", "ref_codes", "thinker_logits", "wave"])
def test_a_difference_fails(written: Path, tmp_path: Path, key: str) -> None:
    for name in (checkpoint.CONFIG, checkpoint.SINGLE):
        (tmp_path / name).symlink_to(written / name)
    arrays = dict(np.load(written / "case-one_turn.npz"))
    arrays[key] = arrays[key] + 1
    np.savez(tmp_path / "case-one_turn.npz", **arrays)
    result = command("verify", str(tmp_path))
    assert result.exit_code == 1
    assert "0 of 2 runs pass" in result.output


def test_what_rounding_may_change_is_less_than_what_decides_an_id(written: Path) -> None:
    for case in golden.read(written):
        for part in ("thinker", "backbone", "decoder"):
            two = np.sort(case[f"{part}_logits"], axis=-1)[..., -2:]
            assert (two[..., 1] - two[..., 0]).min() >= 2 * golden.LOGITS, (case.name, part)


def test_its_text_and_its_frames_vary(written: Path) -> None:
    for case in golden.read(written):
        assert len(set(case["text_tokens"].tolist())) > 2, case.name
        assert all(len(set(book)) > 5 for book in case["frames"].T.tolist()), case.name


def test_its_names_are_those_of_the_full_size(written: Path) -> None:
    full = checkpoint.blueprint(config.parse(json.loads(bench.SIZES["4b"].read_text()))).state_dict()
    ours = checkpoint.blueprint(config.read(written / checkpoint.CONFIG)).state_dict()
    assert set(ours) < set(full)
    assert all(tensor.dim() == full[name].dim() for name, tensor in ours.items())
    result = command("inspect", str(written))
    assert result.exit_code == 0, result.output
    assert "visual tower" in result.output


def test_a_directory_in_use_is_left_alone(written: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
    result = command("toy", str(written))
    assert result.exit_code == 1
    assert result.output == f"Error: {written} is not empty; name a new directory\n"
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == before
