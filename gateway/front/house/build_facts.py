"""Which build of the gateway this is."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Final

from model import __version__

COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
ROOT: Final = Path(__file__).resolve().parents[3]


def build_facts() -> dict[str, str]:
    """Version, commit (empty where the gateway is installed and no checkout) and Python's version."""
    return {"version": __version__, "commit": commit(ROOT)[:12], "python": platform.python_version()}


def commit(checkout: Path) -> str:
    """The commit that a checkout of git is at, read from its files; empty where it is none.

    A linked worktree's `.git` is a file that says where its own things are; branches are in the common
    directory, in a file each or packed.
    """
    try:
        git = checkout / ".git"
        if git.is_file():
            git = checkout / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref:"):
            head = _branch(git, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return ""
    return head if COMMIT.match(head) else ""


def _branch(git: Path, name: str) -> str:
    common = git / "commondir"
    places = [git, git / common.read_text().strip()] if common.is_file() else [git]
    for place in places:
        if (place / name).is_file():
            return (place / name).read_text().strip()
    for place in places:
        if (place / "packed-refs").is_file():
            for line in (place / "packed-refs").read_text().splitlines():
                written, _, branch = line.partition(" ")
                if branch == name:
                    return written
    return ""
