"""Sentences as points: all-MiniLM-L6-v2 (Apache-2.0) as ONNX with int8 weights, without torch.

Two sentences that mean alike are near: their dot product is the cosine. The network is the file `meaning` of
`consent/models/models.lock`. Blocking, about 5 ms of one core for a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from consent.models.model_files import locked_model
from model.api import Floats
from model.meaning.wordpiece import encode

SIZE: Final = 384
"""Numbers of one point."""
WEIGHTS: Final = locked_model("meaning")


class Embedder:
    """One set of weights; `embed` may be called from several threads."""

    def __init__(self, network: Path) -> None:
        import onnxruntime  # 20 MB, only where somebody listens

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(network), options, providers=["CPUExecutionProvider"]
        )

    @classmethod
    def load(cls, models: Path) -> Self:
        """With the network out of the directory `models`.

        Raises `ModelFileMissing` when the file is not there, `ModelFileError` when it is another file.
        """
        with WEIGHTS.verified(models) as folder:
            return cls(folder / WEIGHTS.files[0].name)

    def embed(self, texts: Sequence[str]) -> Floats:
        """`(len(texts), 384)` float32, each row of length 1.

        One sentence at a time: the network chooses the scale of its int8 numbers by all that it is given, so
        a sentence among others would get another point than alone.
        """
        points = np.empty((len(texts), SIZE), np.float32)
        for row, text in enumerate(texts):
            ids = np.array([encode(text)], np.int64)
            inputs = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            states = self._session.run(None, inputs)[0][0]  # (pieces, 384)
            point = states.mean(axis=0)
            points[row] = point / np.linalg.norm(point)
        return points
