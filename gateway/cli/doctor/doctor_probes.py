"""What the doctor tries in a process of its own, because a native library may take its process down.

`python -m gateway.cli.doctor.doctor_probes g722|pjsua2|embedded|vad|torch` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

_KEPT: Final[list[Any]] = []
"""pjsua2 aborts when its objects go before the process does."""


def g722() -> dict[str, Any]:
    """FFmpeg's G.722, there and back; the other codecs of telephones are our own tables."""
    import numpy as np

    from gateway.rtp.payloads.g722 import G722Decoder, G722Encoder

    codes = G722Encoder().encode(bytes(640))
    return {"bytes": len(codes), "samples": int(np.size(G722Decoder().decode(codes)))}


def pjsua2() -> dict[str, Any]:
    """What the test phone is made of."""
    import pjsua2 as pj

    endpoint = pj.Endpoint()
    endpoint.libCreate()
    _KEPT.append(endpoint)
    return {"version": endpoint.libVersion().full}


def embedded() -> dict[str, Any]:
    """The embedded engine's mouth says a word, and what its ears compute with loads."""
    import ctranslate2
    from hibari import SAMPLE_RATE, Hibari
    from pocketsphinx import Decoder

    samples = sum(len(sound) for sound in Hibari().stream("Hello."))
    Decoder(loglevel="FATAL", lm=None)
    if "int8" not in ctranslate2.get_supported_compute_types("cpu"):
        return {"error": "CTranslate2 has no 8-bit weights on this processor"}
    return {"rate_hz": SAMPLE_RATE, "seconds": round(samples / SAMPLE_RATE, 2)}


def vad() -> dict[str, Any]:
    """Silero's network, which comes with the program, loads and hears silence."""
    import numpy as np

    from consent.silero.network import STATE, open_network

    silence = np.zeros((1, 288), np.float32)  # 32 ms at 8 kHz and an eighth before them
    answer, _ = open_network(8_000).judge(silence, np.zeros((2, 1, STATE), np.float32))
    return {"likely": round(float(answer[0]), 3)}


def torch() -> dict[str, Any]:
    """What the Chroma engine computes on."""
    import torch as package

    device = package.cuda.get_device_name(0) if package.cuda.is_available() else "CPU only"
    return {"version": str(package.__version__), "device": device}


PROBES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "g722": g722,
    "pjsua2": pjsua2,
    "embedded": embedded,
    "vad": vad,
    "torch": torch,
}


if __name__ == "__main__":
    out = os.dup(1)  # libraries chat on stdout; the answer goes to the real one
    os.dup2(2, 1)
    try:
        answer = PROBES[sys.argv[1]]()
    except ImportError as error:
        answer = {"missing": error.name or str(error)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.write(out, json.dumps(answer).encode())
    os._exit(0)
