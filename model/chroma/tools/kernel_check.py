"""Kernels."""
from collections.abc import Callable, Iterator
from typing import Any
import torch


def checks(device: torch.device, *, small: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    yield "nothing", lambda: {"passed": True}
