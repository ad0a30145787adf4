"""Weights from disk: safetensors by their official names, straight to device and dtype, every one used once.

A checkpoint is a directory with `config.json` and either `model.safetensors` or its shards and their index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.chroma.network import config as chroma_config
from model.chroma.network.config import ChromaConfig
from model.chroma.network.joined import joined_owner
from model.chroma.network.precision import KV, Weights, keep_kv, round_weights
from model.chroma.network.weights import Chroma
from model.errors import CheckpointError

CONFIG: Final = "config.json"
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

UNREAD: Final = re.compile(
    r"thinker\.visual\.|thinker\.audio_tower\.audio_bos_eos_token\.weight$|codec_model\..*\.codebook\.initialized$"
)
"""Stored, and never read by the official model's speech: the visual tower, an unused embedding, flags."""
TABLE: Final = (
    "backbone.audio_embedding.embed_audio_tokens.weight",
    "decoder.audio_embedding.embed_audio_tokens.weight",
)
"""Names of the one shared table of audio embeddings; a checkpoint has either (or both, the same)."""

HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor on disk."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


def find(source: str | Path) -> Path:
    """The checkpoint's directory: a path, or a hub id that is downloaded (resumed, with progress).

    Raises `CheckpointError`.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise CheckpointError(f"{source} is neither a directory nor a hub id such as FlashLabs/Chroma-4B")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(HUB_FILES)))
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{source}: the hub has no such model, or it wants a login (huggingface-cli login)"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{source} cannot be downloaded: {reason}; run again to resume") from None


def stored(directory: Path) -> dict[str, Stored]:
    """Every tensor of the checkpoint by name, from the files' heads. Raises `CheckpointError`."""
    found: dict[str, Stored] = {}
    for file in _files(directory):
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                if name in found:
                    raise CheckpointError(f"{name} is stored twice: in {found[name].file} and {file}")
                piece = tensors.get_slice(name)
                found[name] = Stored(file, tuple(piece.get_shape()), str(piece.get_dtype()))
    return found


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index}: no index of shards: {error!r}") from None
        files = [directory / str(name) for name in names]
    else:
        files = [directory / SINGLE]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
    return files


def _opened(file: Path, device: str = "cpu") -> Any:
    try:
        return safe_open(file, framework="pt", device=device)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short ({error}); download it again") from None


def official(name: str, present: Iterable[str]) -> str:
    """The name under which the checkpoint has one of our tensors."""
    if name != "audio_table":
        return name
    return next((table for table in TABLE if table in present), TABLE[0])


def plan(model: Chroma, shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, str]:
    """Our name to stored name, for every tensor; each stored one is used once.

    Raises `CheckpointError` that names what is missing, extra or misshapen.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = {name: official(name, shapes) for name in wanted}
    if missing := [stored_name for stored_name in names.values() if stored_name not in shapes]:
        raise CheckpointError(f"{where}: {_list(missing)} missing")
    for name, stored_name in names.items():
        if shapes[stored_name] != wanted[name]:
            raise CheckpointError(
                f"{where}: {stored_name} has shape {list(shapes[stored_name])}; "
                f"{CONFIG} asks for {list(wanted[name])}"
            )
    used = {*names.values(), *TABLE}
    if extra := [name for name in shapes if name not in used and not UNREAD.match(name)]:
        raise CheckpointError(f"{where}: {_list(extra)} unknown to this engine")
    return names


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    verb = "is" if len(names) == 1 else "are"
    return f"{shown}{f' and {len(names) - 3} more' if len(names) > 3 else ''} {verb}"


def blueprint(config: ChromaConfig) -> Chroma:
    """The model without memory (meta device)."""
    with torch.device("meta"):
        return Chroma(config)


def load(
    directory: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    codec_dtype: torch.dtype | None = None,
    weights: Weights = "full",
    kv: KV = "full",
) -> Chroma:
    """The checkpoint's model, ready to run. `codec_dtype` None: Mimi as the rest; `weights` and `kv`: see
    `precision`.

    Raises `CheckpointError`.
    """
    model = blueprint(chroma_config.read(directory / CONFIG))
    tensors = stored(directory)
    names = plan(model, {name: tensor.shape for name, tensor in tensors.items()}, str(directory))
    _same_table(tensors)
    with ExitStack() as files:
        opened: dict[Path, Any] = {}
        for name, stored_name in names.items():
            file = tensors[stored_name].file
            if file not in opened:
                opened[file] = files.enter_context(_opened(file, str(device)))
            kind = codec_dtype if codec_dtype is not None and name.startswith("codec_model.") else dtype
            try:
                tensor = opened[file].get_tensor(stored_name).to(kind)
            except SafetensorError as error:
                raise CheckpointError(f"{file}: {stored_name} cannot be read: {error}") from None
            place(model, name, tensor)
    return keep_kv(round_weights(model.eval(), weights), kv)


def place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a tensor where the blueprint has a parameter of that name."""
    owner, _, attribute = name.rpartition(".")
    joined = joined_owner(model, owner)
    if joined is not None:
        layer, piece = joined
        layer.put(piece, attribute, tensor)
        return
    setattr(model.get_submodule(owner), attribute, nn.Parameter(tensor, requires_grad=False))


def _same_table(tensors: Mapping[str, Stored]) -> None:
    """Where the shared table is stored under both names, it must be one table."""
    if not all(name in tensors for name in TABLE):
        return
    first, second = (_read(tensors[name].file, name) for name in TABLE)
    if not torch.equal(first, second):
        raise CheckpointError(f"{TABLE[0]} and {TABLE[1]} differ; they must be one table")


def _read(file: Path, name: str) -> Tensor:
    with _opened(file) as tensors:
        tensor: Tensor = tensors.get_tensor(name)
        return tensor
