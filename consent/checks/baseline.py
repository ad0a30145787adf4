"""The built-in classifier of synthetic speech: a small network over `consent.checks.traits`.

`benchmarks/synthetic_training.py` trained it, on eleven synthesizers and some three hundred people;
`baseline.json` holds its weights, and what they come from. docs/consent.md says how often it errs, and for
which synthesizers it is worthless. Its word holds a registration for an ear, and proves nothing either way.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consent.checks.sound import RATE_HZ, Floats
from consent.checks.synthetic import Synthetic
from consent.checks.traits import at_traits_rate, slices, traits
from consent.errors import ModelFileError

PATH: Final = Path(__file__).with_name("baseline.json")
SHA256: Final = "e97ca57ec6cfa72bef47b45db2b055c14a3b8b6a6f5ce5061b4e46a86f41c36a"
CLIP: Final = 4.0
"""Standard deviations beyond which a trait says no more: a freak sound cannot outvote the rest."""
DOUBT: Final = 0.7
"""As near as this to the threshold, the finding says that it is near."""

PASSAGE: Final = 1.0
"""As far as this above the threshold, one slice is a finding: a machine may speak among a person's words."""

_Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """One hidden layer over named traits; a score above 0 speaks for a machine, in natural log odds."""

    names: tuple[str, ...]
    mean: _Doubles
    scale: _Doubles
    first: _Doubles
    first_bias: _Doubles
    second: _Doubles
    second_bias: float

    def scores(self, values: _Doubles) -> _Doubles:
        """The scores `(n,)` of slices with these traits `(n, traits)`."""
        normal = np.clip((values - self.mean) / self.scale, -CLIP, CLIP)
        return np.asarray(np.tanh(normal @ self.first + self.first_bias) @ self.second + self.second_bias)


class Baseline:
    """Whether a recording sounds like the machines that it was trained on."""

    name = "baseline"
    proves_human = False
    proves_machine = False

    def __init__(self, network: Network, threshold: float) -> None:
        self._network = network
        self._threshold = threshold

    @classmethod
    def load(cls, path: Path = PATH, sha256: str = SHA256) -> Baseline:
        """The weights that came with voicegate. Raises `ModelFileError` when the file is away or another."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}; install voicegate again") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ModelFileError(f"{path} is not the file that came with voicegate; install voicegate again")
        table = json.loads(content)
        network = Network(
            tuple(table["traits"]), np.array(table["mean"]), np.array(table["scale"]),
            np.array(table["first"]), np.array(table["first_bias"]),
            np.array(table["second"]), table["second_bias"],
        )  # fmt: skip
        return cls(network, table["threshold"])

    def examine(self, pcm: Floats) -> Synthetic:
        """float32 mono at 24 kHz. `found` is None where there is too little speech to say anything."""
        scores, at_s = self.scores(pcm)
        if not len(scores):
            return Synthetic(
                None, f"the {self.name} classifier found too little speech: listen for a machine"
            )
        return self._finding(scores, at_s)

    def scores(self, pcm: Floats) -> tuple[_Doubles, _Doubles]:
        """The scores `(n,)` of slices that have speech, and their begin and end in seconds, `(n, 2)`."""
        pieces = slices(at_traits_rate(pcm))
        usable = [
            (number, found) for number, piece in enumerate(pieces) if (found := traits(piece)) is not None
        ]
        length_s = len(pcm) / RATE_HZ / len(pieces)
        at_s = np.array([(number * length_s, (number + 1) * length_s) for number, _ in usable])
        values = [[each[name] for name in self._network.names] for _, each in usable]
        return self._network.scores(np.array(values)) if usable else np.zeros(0), at_s

    def _finding(self, scores: _Doubles, at_s: _Doubles) -> Synthetic:
        score, worst = float(scores.mean()), int(scores.argmax())
        whole = score > self._threshold
        passage = not whole and bool(scores[worst] > self._threshold + PASSAGE)
        said = ["like a machine" if whole else "like a person"]
        if abs(score - self._threshold) < DOUBT:
            said.append("though near the line between them")
        if len(scores) > 1 and scores[worst] > self._threshold:
            how = "but like a machine" if passage else "most so" if whole else "least so"
            said.append(f"{how} from {at_s[worst, 0]:.0f} to {at_s[worst, 1]:.0f} s")
        return Synthetic(
            whole or passage,
            f"it sounds {', '.join(said)} (score {score:+.1f}, machines above {self._threshold:+.1f}, by the "
            f"{self.name} classifier, which is deaf to machines that it never met): listen",
        )
