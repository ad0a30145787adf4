"""The bench prints its table, for a checkpoint and for drawn weights. Its figures are not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from model.chroma.network import checkpoint as checkpoints
from model.chroma.network import config
from model.chroma.network.weights import Chroma
from model.chroma.serving.slots import Slots
from model.chroma.tools import bench, crowd
from model.chroma.tools import floor as floors
from model.errors import EngineError
from tests.model.chroma import toy

QUICK = ("--frames", "4", "--speech", "1", "--lengths", "1,2", "--device", "cpu")


def command(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["engine", "bench", *argv], prog_name="voicegate")


def check(output: str) -> None:
    for line in (
        "= first codes (TTFT)", "= first sound", "  Reasoner (every second frame)", "  Backbone", "  Decoder",
        "  codec", "  real-time factor", "memory: weights",
    ):  # fmt: skip
        assert f"\n{line}" in output, output


def test_a_checkpoint(golden: Path) -> None:
    result = command("--checkpoint", str(golden), *QUICK)
    assert result.exit_code == 0, result.output
    check(result.output)


def test_drawn_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the toy's sizes: the same way as full size goes."""
    sizes = tmp_path / "toy.json"
    codec = {**toy.TABLE["codec_config"], "sampling_rate": 600}  # frames of 80 ms, so that a clip is short
    sizes.write_text(json.dumps({**toy.TABLE, "codec_config": codec}))
    monkeypatch.setitem(bench.SIZES, "4b", sizes)
    plot = tmp_path / "calls.png"
    many = ("--calls", "1,3", "--context", "80", "--reply", "50", "--plot", str(plot))
    result = command("--random", "4b", *QUICK, "--weights", "int8", *many)
    assert result.exit_code == 0, result.output
    check(result.output)
    lines = result.output.splitlines()
    table = lines[lines.index(crowd.HEAD) + 1 :]
    assert [int(line.split()[0]) for line in table[:2]] == [1, 3]
    assert "a frame of 3 call(s) needs" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_full_size_is_the_size_of_the_parameter_list(goldens: Path) -> None:
    sizes = config.parse(json.loads(bench.SIZES["4b"].read_text()))
    rows = [row.split("\t") for row in (goldens / "chroma-4b-params.tsv").read_text().splitlines()]
    listed = {row[0]: int(row[2]) for row in rows if len(row) >= 4 and row[2].isdigit()}
    unread = checkpoints.UNREAD
    read = sum(n for name, n in listed.items() if name != checkpoints.TABLE[1] and not unread.match(name))
    assert sum(tensor.numel() for tensor in checkpoints.blueprint(sizes).state_dict().values()) == read


def test_a_crowd_stops_at_what_fits(toy_model: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
    make = crowd.Slots.make

    def three(model: Chroma, count: int, *args: Any, **kwargs: Any) -> Slots:
        if count > 3:  # the one that joins has a slot too
            raise torch.OutOfMemoryError
        return make(model, count, *args, **kwargs)

    monkeypatch.setattr(crowd.Slots, "make", three)
    assert [line.calls for line in crowd.table(toy_model, [2, 3, 4], 80, 60, 4)] == [2]
    with pytest.raises(EngineError, match="are more than this model's 4096 / 600 positions"):
        list(crowd.table(toy_model, [1], 80, 500, 40))


def test_wrong_numbers_are_named(golden: Path) -> None:
    for argv in (("--calls", "1,zero"), ("--calls", "0"), ("--lengths", ""), ("--plot", "a.png")):
        result = command("--checkpoint", str(golden), *argv)
        assert result.exit_code == 2
        assert argv[0] in result.output


def test_either_or(golden: Path) -> None:
    for argv in ((), ("--checkpoint", str(golden), "--random", "4b")):
        result = command(*argv)
        assert result.exit_code == 2
        assert "give either --checkpoint or --random" in result.output


def test_the_floor_counts_what_a_frame_reads(goldens: Path) -> None:
    """Against the bytes that were counted for the full model: 3.09 (half), 1.96, 1.62 GB."""
    model = checkpoints.blueprint(config.read(goldens / "chroma-4b-config.json")).to(torch.bfloat16)
    floor = floors.Floor(model, 1.0)
    assert floor.bytes("Reasoner", 0, 0) / 2 == pytest.approx(3.09e9, rel=0.01)
    assert floor.bytes("Backbone", 0, 0) == pytest.approx(1.96e9, rel=0.01)
    assert floor.bytes("Decoder", 0, 0) == pytest.approx(1.62e9, rel=0.02)
    assert floor.bytes("Reasoner", 0, 0, 9) == floor.bytes("Reasoner", 0, 0), "weights are read once for all"
    assert floor.bytes("Reasoner", 1, 0) - floor.bytes("Reasoner", 0, 0) == 36_864
    assert floor.bytes("Backbone", 0, 1) - floor.bytes("Backbone", 0, 0) == 32_768


def test_the_floor_counts_what_a_frame_multiplies(goldens: Path) -> None:
    """Parts by their parameters: two operations for each of them and each position."""
    sizes = config.read(goldens / "chroma-4b-config.json")
    floor = floors.Floor(checkpoints.blueprint(sizes), 1.0)
    assert floor.operations("Reasoner", 0, 0) == pytest.approx(2 * (2.775e9 + 0.311e9), rel=0.01)
    assert floor.operations("Backbone", 0, 0, 3) == pytest.approx(3 * 2 * 2 * (1.011e9 - 0.034e9), rel=0.01)
    assert floor.operations("codec", 0, 0) > 2 * floors.nbytes(floor.model.codec_model.decoder) / 4
