"""What the doctor tries in a process of its own, because a native library may take its process down.

`python -m gateway.cli.doctor_probes pjsua2|embedded|vad|torch` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

ENOUGH_CALLS: Final = 32
"""The probe stops asking there; a build without the wheel's limit is as good as any."""
_KEPT: Final[list[Any]] = []
"""pjsua2 aborts when its objects go before the process does."""


def pjsua2() -> dict[str, Any]:
    """Version, codecs, and how many calls one process really holds: the wheel cuts a higher `maxCalls`."""
    import pjsua2 as pj

    nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nobody.bind(("127.0.0.1", 0))
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.maxCalls = ENOUGH_CALLS
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.logConfig.level = config.logConfig.consoleLevel = 0
    endpoint.libInit(config)
    endpoint.audDevManager().setNullDev()
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    account, identity = pj.Account(), pj.AccountConfig()
    identity.idUri = "sip:doctor@127.0.0.1"
    account.create(identity)
    _KEPT.extend((endpoint, account, nobody))
    calls = 0
    try:
        while calls < ENOUGH_CALLS:
            call = pj.Call(account)
            _KEPT.append(call)
            call.makeCall(f"sip:nobody@127.0.0.1:{nobody.getsockname()[1]}", pj.CallOpParam(True))
            calls += 1
    except pj.Error:
        pass  # full: that was the question
    codecs = sorted(codec.codecId.rpartition("/")[0] for codec in endpoint.codecEnum2())
    return {"version": endpoint.libVersion().full, "codecs": codecs, "calls": calls}


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
    """Silero's network, which comes with the program, loads."""
    from consent.silero.network import open_network

    return {"inputs": [entry.name for entry in open_network().get_inputs()]}


def torch() -> dict[str, Any]:
    """What the Chroma engine computes on."""
    import torch as package

    device = package.cuda.get_device_name(0) if package.cuda.is_available() else "CPU only"
    return {"version": str(package.__version__), "device": device}


PROBES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
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
