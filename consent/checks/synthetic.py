"""Synthetic speech: our own watermark is looked for in every recording, and a classifier listens to it.

A mark of ours is proof that this gateway made the sound. No mark proves nothing: other programs do not mark.
`consent.checks.baseline` is the classifier where the operator names no other. A classifier's word is
evidence: it passes or refuses only where an operator's own says of itself that it proves that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from consent.checks.sound import RATE_HZ, Floats
from watermark.errors import WatermarkError
from watermark.keys import KeyRing


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What a check found. `found` None: it cannot tell."""

    found: bool | None
    detail: str


class SyntheticCheck(Protocol):
    """The seam. `proves_human`: whether its `False` may stand as passed.

    It may also have `proves_machine`: whether its `True` may refuse. Where it lacks that, it may.
    """

    name: str
    proves_human: bool

    def examine(self, pcm: Floats) -> Synthetic:
        """float32 mono at 24 kHz."""
        ...


class OwnMark:
    """Looks for this gateway's watermark, with all keys of its ring."""

    name = "own watermark"
    proves_human = False

    def __init__(self, keys_path: Path) -> None:
        self._keys_path = keys_path

    def examine(self, pcm: Floats) -> Synthetic:
        """Looks for the mark in float32 mono at 24 kHz."""
        try:
            detect: Callable[..., Any] = importlib.import_module("watermark.detect").detect
            ring = KeyRing.load(self._keys_path)
        except (ModuleNotFoundError, WatermarkError) as error:
            return Synthetic(None, f"not looked for: {error}")
        try:
            detection = detect(pcm, RATE_HZ, ring.keys)
        except WatermarkError as error:
            return Synthetic(None, str(error))
        if detection.detected:
            return Synthetic(True, f"this gateway's own mark is in it (p = {detection.p_value:.1e})")
        return Synthetic(False, "no mark of this gateway")


def load_classifier(factory: str) -> SyntheticCheck:
    """`package.module:function`, called without arguments, as the operator's `checks.toml` names it.

    Raises `ValueError` saying what is wrong with it.
    """
    module, _, name = factory.partition(":")
    try:
        made: SyntheticCheck = getattr(importlib.import_module(module), name)()
    except Exception as error:  # an operator's own code may raise anything
        raise ValueError(f"the classifier {factory!r} cannot be loaded: {error}") from None
    if not callable(getattr(made, "examine", None)):
        raise ValueError(f"the classifier {factory!r} has no examine()")
    if not isinstance(getattr(made, "name", None), str):
        raise ValueError(f"the classifier {factory!r} has no name")
    if not isinstance(getattr(made, "proves_human", None), bool):
        raise ValueError(f"the classifier {factory!r} does not say whether it proves_human: True or False")
    return made


def examined(check: SyntheticCheck, pcm: Floats) -> Synthetic:
    """What `check` found in `pcm` (float32 mono at 24 kHz); where it fails, it cannot tell."""
    try:
        seen = check.examine(pcm)
    except Exception as error:  # an operator's own code may raise anything
        return Synthetic(None, f"{check.name} failed ({type(error).__name__}: {error}): listen for a machine")
    if not isinstance(seen, Synthetic):
        return Synthetic(None, f"{check.name} returned no finding: listen for a machine")
    return seen
