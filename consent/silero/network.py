"""Silero VAD's network, carried with this program: `silero_vad.onnx` of silero-vad 6.2.3 (MIT, `LICENSE`).

The file judges windows of 32 ms at 8 and at 16 kHz. The package it comes from would bring torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consent.errors import ModelFileError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PATH: Final = Path(__file__).with_name("silero_vad.onnx")
SHA256: Final = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"


def read_network() -> bytes:
    """The file's content. Raises `ModelFileError` when the file is away or has another hash."""
    try:
        content = PATH.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{PATH}: {error.strerror}; install voicegate again") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelFileError(f"{PATH} is not the file that came with voicegate; install voicegate again")
    return content


def open_network() -> InferenceSession:
    """The network on one thread. Raises `ModelFileError` as `read_network` does."""
    import onnxruntime  # 20 MB, and most processes that import `consent` never listen

    content = read_network()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
