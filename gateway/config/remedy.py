"""How this program is installed again, or with an extra: always from what it was installed from.

The distribution is on no package index, and somebody else may take its name there. So a remedy names the
checkout or the wheel file, never the bare name.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import gateway

DISTRIBUTION: Final = "voicegate-telephony"
SOURCE: Final = Path(gateway.__file__).resolve().parents[1]
"""The checkout, or the site-packages of a wheel."""


def is_checkout() -> bool:
    """Whether this program runs from a checkout."""
    return (SOURCE / "pyproject.toml").is_file()


def wheel_path() -> str:
    """The wheel file that this program was installed from, as pip noted it (PEP 610); else a word for it."""
    import json  # here, because `voicegate` imports this module for every command
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        noted = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        noted = {}
    url = urlsplit(str(noted.get("url", "")))
    if url.scheme == "file" and url.path.endswith(".whl"):
        return unquote(url.path)
    return "PATH-TO-THE-WHEEL"


def install_with(extra: str) -> str:
    """The command that installs this program with one of its extras."""
    if is_checkout():
        return _pip("install", "-e", f"{SOURCE}[{extra}]")
    return _pip("install", f"{wheel_path()}[{extra}]")


def install_again() -> str:
    """The command that installs this program and all that it needs once more."""
    if is_checkout():
        return shlex.join(("make", "-C", str(SOURCE), "clean", "run"))
    return _pip("install", "--force-reinstall", wheel_path())


def _pip(*words: str) -> str:
    return shlex.join((sys.executable, "-m", "pip", *words))
