"""One part of `gpu_check` in its own process: what is asked of it, and where its findings go."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TextIO

import torch

from model.chroma.network import checkpoint
from model.chroma.network.weights import Chroma
from model.chroma.serving.engine_settings import EngineSettings, place
from model.chroma.tools import bench, toy
from model.chroma.tools.gpu_check import CheckAsked

Size = Literal["full", "small"]


class Missing(Exception):
    """What a part needs is not at hand."""


@dataclass
class Job:
    """One part's order, and where its findings go."""

    asked: CheckAsked
    known: Mapping[str, Mapping[str, Any]]
    until: float
    told: TextIO

    @property
    def left_s(self) -> float:
        return self.until - time.monotonic()

    def tell(self, name: str, /, **found: Any) -> None:
        """Something found; `passed` where it can fail."""
        self._say({"name": name, "found": found})

    def _say(self, line: Mapping[str, Any]) -> None:
        self.told.write(json.dumps(line) + "\n")
        self.told.flush()

    def end(self, end: str, why: str = "") -> None:
        self._say({"end": end, "why": why})

    def do(self, name: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Finds and tells it, unless it is known. An error fails it; what the GPU never recovers from ends
        the process, and the next one goes on behind it."""
        if name in self.known:
            return
        self._say({"name": name, "found": {"under way": True}})
        try:
            found = dict(work())
        except Missing:
            raise
        except Exception as error:
            traceback.print_exc()
            if self.device.type == "cuda":
                torch.cuda.synchronize()  # raises once more where the error stays
                torch.cuda.empty_cache()
            found = {"passed": False, "why": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        self.tell(name, **found)

    @cached_property
    def _where(self) -> tuple[torch.device, torch.dtype]:
        return place(EngineSettings(device=self.asked.device))

    @property
    def device(self) -> torch.device:
        return self._where[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._where[1]

    @property
    def size(self) -> Size:
        if self.asked.size == "auto":
            return "full" if self.device.type == "cuda" else "small"
        return self.asked.size

    @property
    def golden(self) -> Path:
        """A checkpoint with cases: the one that is named, or a toy, which is written once."""
        if self.asked.golden is not None:
            return Path(self.asked.golden)
        found = Path(self.asked.folder) / "toy"
        if not (found / "complete").exists():
            shutil.rmtree(found, ignore_errors=True)
            toy.write(found)
            (found / "complete").touch()
        return found

    def model(self) -> Chroma:
        """With drawn weights of full size, or the golden's."""
        if self.size == "full":
            return bench.random_model("4b", self.device, self.dtype)
        return self.load(self.dtype)

    def load(self, dtype: torch.dtype) -> Chroma:
        """The golden's."""
        return checkpoint.load(self.golden, device=self.device, dtype=dtype, codec_dtype=torch.float32)
