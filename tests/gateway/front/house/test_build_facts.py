"""Which commit a checkout is at, out of git's own files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gateway.front.house.build_facts import build_facts, commit
from model import __version__

LIMIT_S = 60


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    asked = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=LIMIT_S
    )
    return asked.stdout.strip()


def test_branches_loose_and_packed_detached_heads_and_worktrees(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "one")
    at = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout) == at
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    assert commit(tmp_path / "linked") == at
    git(checkout, "pack-refs", "--all")
    assert commit(checkout) == commit(tmp_path / "linked") == at
    git(checkout, "checkout", "-q", "--detach")
    assert commit(checkout) == at


def test_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit(tmp_path) == ""
    (tmp_path / ".git" / "HEAD").write_text("<script>\n")
    assert commit(tmp_path) == ""


def test_the_facts_are_version_commit_and_python() -> None:
    facts = build_facts()
    assert facts["version"] == __version__
    assert len(facts["commit"]) in (0, 12)
    assert set(facts) == {"version", "commit", "python"}
