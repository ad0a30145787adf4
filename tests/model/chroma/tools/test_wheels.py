"""The wheels that gpu-check takes along are all that it imports, in the versions that it was tried with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[4]
LIST = ROOT / "deploy" / "gpu-check" / "wheels.txt"
WITH_TORCH = {"torch", "triton", "setuptools", "sympy", "mpmath", "networkx", "pip"}
"""A machine with torch has these."""
WHERE_THEY_ARE = {"attrs", "pillow", "rich", "pygments", "markdown-it-py", "mdurl", "voicegate-telephony"}
"""transformers and structlog look for some of them and do without; the last is this checkout."""
ELSE: dict[str, str] = {"numpy": "2.3.5"}
"""Versions that are not pyproject.toml's; the README says why."""

PROGRAM = """
import importlib.metadata, json, sys
import model.chroma.tools.checkpoint_check, model.chroma.tools.gpu_parts, consent.whisper.whisper, ctranslate2
import soxr
from transformers import AutoTokenizer
from transformers.audio_utils import mel_filter_bank
tops = {name.partition(".")[0] for name in sys.modules}
owners = importlib.metadata.packages_distributions()
print(json.dumps(sorted({owner for top in tops for owner in owners.get(top, ())})))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in LIST.read_text().splitlines())
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def test_all_that_is_imported_is_listed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    imported = {normal(name) for name in json.loads(done.stdout)}
    assert {"transformers", "cryptography", "structlog", "soxr", "tokenizers"} <= imported
    assert imported - set(listed()) - WITH_TORCH - WHERE_THEY_ARE == set(), (
        "add to deploy/gpu-check/wheels.txt"
    )


def test_versions_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = [*project["dependencies"], *project["optional-dependencies"]["chroma"]]
    named = dict(re.sub(r"\[.*\]", "", one).split("==") for one in pinned if "==" in one)
    wanted = {normal(name): version for name, version in named.items()} | ELSE
    found = listed()
    assert {name: wanted[name] for name in found if name in wanted} == {
        name: version for name, version in found.items() if name in wanted
    }
