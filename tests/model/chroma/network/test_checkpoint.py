"""Loading: every tensor once, and an error that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.chroma.network import checkpoint, config
from model.chroma.tools.toy import tensors
from model.errors import CheckpointError
from tests.model.chroma import toy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return tensors(toy.model())


def load(directory: Path) -> checkpoint.Chroma:
    return checkpoint.load(directory, device=CPU, dtype=torch.float32)


def params(goldens: Path) -> dict[str, tuple[int, ...]]:
    """The full model's entries: name and shape."""
    rows = [line.split("\t") for line in (goldens / "chroma-4b-params.tsv").read_text().splitlines()]
    table = [row for row in rows if len(row) >= 4 and row[3] in ("param", "buffer")]
    return {row[0]: tuple(int(n) for n in row[1].split("x")) for row in table}


def test_the_full_models_names_and_shapes_load_on_the_meta_device(goldens: Path) -> None:
    shapes = params(goldens)
    assert len(shapes) == 1907
    model = checkpoint.blueprint(config.read(goldens / "chroma-4b-config.json"))
    for table in checkpoint.TABLE:  # stored once, under either name: 1,906 tensors
        once = {
            name: shape for name, shape in shapes.items() if name == table or name not in checkpoint.TABLE
        }
        assert len(once) == 1906
        names = checkpoint.plan(model, once, "chroma-4b")
        unread = [name for name in once if checkpoint.UNREAD.match(name)]
        assert sorted([*names.values(), *unread]) == sorted(once), "each is used once, or known to be unread"
        assert not any("visual" in name for name in names.values())
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_every_tensor_arrives(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    model = load(toy.save(tmp_path, stored))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[checkpoint.official(name, stored)]), name


def test_shards_and_the_tables_other_name_make_the_same_model(
    tmp_path: Path, stored: dict[str, Tensor]
) -> None:
    other = {checkpoint.TABLE[1] if name == checkpoint.TABLE[0] else name: t for name, t in stored.items()}
    one, three = load(toy.save(tmp_path / "1", stored)), load(toy.save(tmp_path / "3", other, shards=3))
    for (name, a), b in zip(one.state_dict().items(), three.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_target_dtype_is_used_and_mimi_may_have_its_own(
    tmp_path: Path, stored: dict[str, Tensor]
) -> None:
    directory = toy.save(tmp_path, stored)
    model = checkpoint.load(directory, device=CPU, dtype=torch.bfloat16, codec_dtype=torch.float32)
    assert model.thinker.lm_head.weight.dtype is torch.bfloat16
    assert {t.dtype for t in model.codec_model.state_dict().values()} == {torch.float32}


LAYER = "thinker.model.layers.1.mlp.up_proj.weight"


def test_a_missing_tensor_is_named(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    rest = {name: tensor for name, tensor in stored.items() if name != LAYER}
    with pytest.raises(CheckpointError, match=f"{LAYER} is missing"):
        load(toy.save(tmp_path, rest))


def test_without_the_shared_table_its_name_is_said(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    rest = {name: tensor for name, tensor in stored.items() if name not in checkpoint.TABLE}
    with pytest.raises(CheckpointError, match=r"audio_embedding.*missing"):
        load(toy.save(tmp_path, rest))


def test_an_extra_tensor_is_named(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"backbone\.extra\.weight is unknown"):
        load(toy.save(tmp_path, {**stored, "backbone.extra.weight": torch.zeros(2)}))


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    wrong = {**stored, LAYER: stored[LAYER][:-1].clone()}
    with pytest.raises(CheckpointError, match=rf"{LAYER} has shape \[79, 48\]; .* asks for \[80, 48\]"):
        load(toy.save(tmp_path, wrong))


def test_two_different_shared_tables_are_refused(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    twice = {**stored, checkpoint.TABLE[1]: stored[checkpoint.TABLE[0]].clone()}
    load(toy.save(tmp_path / "same", twice))
    twice[checkpoint.TABLE[1]] = twice[checkpoint.TABLE[1]] + 1
    with pytest.raises(CheckpointError, match="must be one table"):
        load(toy.save(tmp_path / "differ", twice))


def test_a_truncated_file_is_named(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    file = toy.save(tmp_path, stored) / checkpoint.SINGLE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    toy.save(tmp_path, stored, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        load(tmp_path)


def with_config(tmp_path: Path, stored: dict[str, Tensor], **changes: object) -> Path:
    directory = toy.save(tmp_path, stored)
    (directory / "config.json").write_text(json.dumps({**toy.TABLE, **changes}))
    return directory


def test_another_architecture_is_refused_by_name(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="this is LlamaForCausalLM, not Chroma"):
        load(with_config(tmp_path, stored, architectures=["LlamaForCausalLM"]))


def test_a_missing_key_is_named(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    backbone = {key: value for key, value in toy.TABLE["backbone_config"].items() if key != "hidden_size"}
    with pytest.raises(CheckpointError, match="backbone_config: hidden_size is missing"):
        load(with_config(tmp_path, stored, backbone_config=backbone))


def test_an_unknown_rope_is_refused_by_name(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    backbone = {**toy.TABLE["backbone_config"], "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}
    with pytest.raises(CheckpointError, match="rope_type 'yarn' is unknown"):
        load(with_config(tmp_path, stored, backbone_config=backbone))


def test_neither_a_directory_nor_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a directory nor a hub id"):
        checkpoint.find(tmp_path / "not" / "there")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        load(tmp_path)


def test_a_hub_id_is_downloaded_and_a_failure_says_to_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert checkpoint.find("FlashLabs/Chroma-4B") == tmp_path
    ((name, patterns),) = asked
    assert name == "FlashLabs/Chroma-4B"
    assert {"*.json", "*.safetensors"} <= set(patterns)

    def broken(name: str, **_: object) -> str:
        raise LocalEntryNotFoundError("the line is down\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(CheckpointError, match="the line is down; run again to resume"):
        checkpoint.find("FlashLabs/Chroma-4B")
