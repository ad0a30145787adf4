"""Input is checked by raising: `python -O`, which drops every `assert`, refuses the same wrong input."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "model", "consent", "watermark", "deploy")
REASON = re.compile(r"# noqa: S101  # \S.{7,}")

ROUTE = """
[[route]]
name = "shop"
called = ["shop"]
{condition}

[[route.do]]
verb = "answer"

[[route.do]]
verb = "hangup"
"""
FAULTS = {
    'hours = [{ days = "mom-fri" }]': "'mom-fri' are not days",
    'hours = [{ from = "9 o\'clock" }]': "is not a time",
    'hours = [{ from = "24:00" }]': "a window cannot begin at 24:00",
    'hours = [{ zone = "Mars" }]': "'Mars' is not a time zone",
    'zone = "Mars"': "'Mars' is not a time zone",
    'source = ["10.0.0.0/99"]': "'10.0.0.0/99' is not a network",
    'caller = [" "]': "an empty pattern fits nothing",
    'voice = "two words"': "voice",
    "keep = { transcript = true }": "a caller must be told that it is written down",
}
"""A condition that is wrong -> what is said of it."""


def _asserts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, the text from `assert` to the end of its last line) of each."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            yield node.lineno, "\n".join(lines[node.lineno - 1 : node.end_lineno])


def test_every_assert_says_why_it_is_one() -> None:
    """ruff's S101 refuses an assert without a noqa; this asks for the reason behind it."""
    bare = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in _asserts(path)
        if not REASON.search(text)
    ]
    assert not bare, f"raise instead, or write `# noqa: S101  # why it cannot fail`: {', '.join(bare)}"


def without_asserts(*argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-O", *argv], input=given, capture_output=True, text=True, cwd=ROOT
    )


def test_the_command_refuses_a_plan_with_wrong_days(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(ROUTE.format(condition='hours = [{ days = "mom-fri" }]'))
    done = without_asserts("-m", "gateway.cli", "dialplan", "check", str(tmp_path))
    assert done.returncode == 1
    assert "shop.toml:5: route 'shop': 'mom-fri' are not days" in done.stderr
    assert "Traceback" not in done.stderr
    assert "all well" not in done.stdout


def test_every_wrong_condition_of_a_plan_is_refused(tmp_path: Path) -> None:
    for number, condition in enumerate(FAULTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "shop.toml").write_text(ROUTE.format(condition=condition))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gateway.dialplan import Dialplan\n"
        "from gateway.errors import DialplanError\n"
        "for folder in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        Dialplan.load(folder)\n"
        "        print('all well')\n"
        "    except DialplanError as error:\n"
        "        print(str(error).splitlines()[0])\n"
    )
    done = without_asserts("-c", script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    for fault, said in zip(FAULTS.values(), done.stdout.splitlines(), strict=True):
        assert fault in said


def test_a_hostile_message_is_refused() -> None:
    head = [
        "INVITE sip:demo@127.0.0.1 SIP/2.0",
        "Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx",
        "From: <sip:a@b.c>;tag=1",
        "To: <sip:a@b.c>",
        "Call-ID: 1",
        "CSeq: 1 INVITE",
        "Contact: <sip:a@b.c>",
    ]
    messages = {"good": head}
    for name in ("From", "To", "Contact"):
        long = [f"{line};x={'y' * 1024}" if line.startswith(name) else line for line in head]
        messages[f"its {name} is too long"] = long
    messages["malformed"] = [line.replace("1 INVITE", "x") for line in head]
    messages["CSeq is another method's"] = [line.replace("1 INVITE", "1 BYE") for line in head]
    texts = {name: "\r\n".join([*lines, "", ""]) for name, lines in messages.items()}
    script = (
        "import json, sys\n"
        "from gateway.edge.grammar.message import Unreadable, read\n"
        "def said(text):\n"
        "    try:\n"
        "        read(text.encode())\n"
        "    except Unreadable as error:\n"
        "        return str(error), error.status\n"
        "print(json.dumps({name: said(text) for name, text in json.load(sys.stdin).items()}))\n"
    )
    done = without_asserts("-c", script, given=json.dumps(texts))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("good") is None
    for name, (why, status) in said.items():
        assert why.startswith(name)
        assert status == 400
