"""No text of ours has anybody install a package that is not ours and not in `pyproject.toml`.

Our own distribution is on no package index, and its name may be taken there by anybody: it is installed from
a wheel file or from a checkout.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT = ROOT / "gateway" / "config" / "remedy.py"
"""Puts its commands together; `tests/gateway/config/test_remedy.py` reads what comes out."""
SKIPPED = {".git", ".venv", "build", "dist", "__pycache__", "out", ".official"}
KINDS = {".py", ".md", ".toml", ".sh", ".yaml", ".yml", ".cfg", ".txt", ".html", ".js", ".lock"}

COMMAND = re.compile(r"\bpip[x3]? +install\b(?P<words>[^\n`#;&|()]*)")
TAKES_A_VALUE = {"--find-links", "--index-url", "--extra-index-url", "--python", "--target"}
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[a-z,]+\])?(?P<version>[=<>!~].*)?")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """What `pyproject.toml` names: name -> requirement."""
    every = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    return {normal(re.split(r"[\[=<>]", one)[0]): one for one in every}


def texts() -> Iterator[Path]:
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in SKIPPED]
        for path in (Path(folder, name) for name in names):
            is_text = path.suffix in KINDS or path.name in ("Makefile", "run")  # .ci/run
            if is_text and path not in (BUILT, Path(__file__)):
                yield path


def wrong(line: str) -> list[str]:
    """The words of a line's install commands that name neither a file of ours nor a pinned package."""
    found = []
    for command in COMMAND.finditer(line):
        words = re.findall(r"'[^']*'|\"[^\"]*\"|[^\s'\"]+", command["words"])
        takes_value = False
        for word in (word.strip("'\"") for word in words):
            if takes_value or word.startswith("-") or not word:
                takes_value = word in TAKES_A_VALUE
                continue
            if not (allowed(word) or allowed(word.rstrip(".,:"))):
                found.append(word)
    return found


def allowed(word: str) -> bool:
    if re.fullmatch(r"(\.|.*\.whl|PATH-TO-[A-Z-]+)(\[[a-z,]+\])?", word):
        return True
    requirement = REQUIREMENT.fullmatch(word)
    if requirement is None:
        return False
    known = pinned().get(normal(requirement["name"]))
    return known is not None and (requirement["version"] is None or word == known)


def test_every_install_command_in_our_texts_names_a_file_or_a_pinned_package() -> None:
    seen = 0
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            seen += len(COMMAND.findall(line))
            found += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in wrong(line)]
    assert not found
    assert seen > 5, "the search finds none of the commands that are there"


@pytest.mark.parametrize(
    "line",
    [
        "    pip install voicegate",
        "pip install 'voicegate[chroma]'",
        "pip install voicegate-telephony  # nobody has it yet",
        "say `pip install -U voicegate_telephony[chroma]`",
        "$(BIN)/pip install --quiet --no-deps silero-vad==6.2.3",
        "pipx install voicegate",
        'mend = "pip install --force-reinstall voicegate"',
        "pip install triton==3.8.0",
    ],
)
def test_a_strangers_package_would_be_found(line: str) -> None:
    assert wrong(line)


@pytest.mark.parametrize(
    "line",
    [
        "    pip install 'dist/voicegate_telephony-0.2.0-py3-none-any.whl[chroma]'",
        "pipx install dist/*.whl",
        "$(BIN)/pip install --quiet --editable '.[chroma,cluster,test]'",
        "pip install --no-deps triton==3.9.0  # for the kernels",
        "pip install -e '.[chroma]'",
    ],
)
def test_a_file_the_checkout_and_what_is_pinned_are_well(line: str) -> None:
    assert not wrong(line)
