"""The office's keys are opened by the office alone: no command, and nothing of the front, opens the file."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from gateway.cli.main import cli
from tests.consent.commands.test_cli import Shell
from tests.needs import HANGS_S

KEYS = "office-keys.json"
ROOT = Path(__file__).resolve().parents[3]

opened: list[str] = []
"""The key files that this process opened or listed since `watched` began."""
_watching = False


def _hear(event: str, about: tuple[object, ...]) -> None:
    if _watching and event in ("open", "os.open", "os.rename", "os.link", "shutil.copyfile"):
        opened.extend(str(part) for part in about if KEYS in str(part))


sys.addaudithook(_hear)  # it cannot be taken away again: `watched` says when it counts


@contextlib.contextmanager
def watched() -> Iterator[None]:
    global _watching
    opened.clear()
    _watching = True
    try:
        yield
    finally:
        _watching = False


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell beside an office in a real process of its own, as `voicegate office` runs it."""
    at_work = Shell(tmp_path)
    environ = {**os.environ, **at_work.env}
    log = (tmp_path / "log").open("wb")
    office = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "office"], env=environ, stdout=log, stderr=log
    )
    try:
        client = OfficeClient(tmp_path / "data" / "consent" / "office.sock", back_s=HANGS_S)
        assert client.user() == os.getuid()
        client.close()
        yield at_work
    finally:
        office.send_signal(signal.SIGTERM)
        assert office.wait(HANGS_S) == 0, (tmp_path / "log").read_text()
        log.close()


def test_the_hook_hears_of_the_key_file(tmp_path: Path) -> None:
    (tmp_path / KEYS).write_text("{}")
    with watched():
        (tmp_path / KEYS).read_text()
    assert len(opened) == 1


@pytest.mark.long("a whole life of a voice, with the real speaker model in another process")
def test_no_command_opens_the_offices_keys(shell: Shell, tmp_path: Path) -> None:
    consent = tmp_path / "data" / "consent"
    with watched():
        shell.operators()
        assert "needs review" in shell.register()
        shell(f"voice review jane --listen {tmp_path}/listen", by="bob")
        assert "jane is active" in shell("voice review jane --approve", by="bob")
        for line in (
            "voice list",
            "voice show jane",
            "voice usage jane",
            "operator list",
            "ledger show",
            "voice tidy",
        ):
            shell(line)
        shell(f"voice export jane --out {tmp_path}/jane.json --with-sound", by="alice")
        shell("voice checks")
        assert "all well" in shell("ledger verify")
        shell(f"ledger head --out {tmp_path}/head")
        shell(f"voice backup {tmp_path}/backup --passphrase-from {shell.file('p', 'a long passphrase')}")
        shell("voice rotate signing", by="alice")
        shell("voice rotate master", by="alice")
        shell("voice revoke jane --reason asked", by="alice")
        shell("voice erase jane --yes --reason asked", by="alice")
        FrontOffice(OfficeClient(consent / "office.sock"), consent / "grant-keys.json").usable()
    assert opened == []
    assert (consent / KEYS).exists()


def test_a_command_that_starts_an_office_of_its_own_does_not_open_them_either(tmp_path: Path) -> None:
    alone = Shell(tmp_path)
    with watched():
        alone("operator add alice --role registrar --no-passphrase")
        assert "founder" in alone("operator list")
    assert opened == []
    assert (tmp_path / "data" / "consent" / KEYS).exists()
    assert not (tmp_path / "data" / "consent" / "office.sock").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_whoever_may_not_open_the_keys_hears_who_must_start_the_office() -> None:
    """A folder of root's, asked by nobody."""
    folder = Path(f"/tmp/vg-keys-{os.getpid()}")
    folder.mkdir(mode=0o755)
    (folder / "consent").mkdir(mode=0o700)
    program = (
        "import os, encodings.idna, consent.commands.cli\n"  # nobody may not read the interpreter's own files
        "from gateway.cli.main import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "main()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, "voice", "list", "--data-dir", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 1
    assert re.search(r"Error: .*keys are root's: start the gateway as root, or be root", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_socket_that_another_service_should_serve_is_never_replaced_by_an_office_of_the_commands(
    tmp_path: Path,
) -> None:
    env = {**Shell(tmp_path).env, "VOICEGATE_OFFICE_SOCKET": str(tmp_path / "away.sock")}
    done = CliRunner().invoke(cli, ["voice", "list"], env=env)
    assert done.exit_code == 1
    assert "nobody serves the consent office at" in done.output
    assert not (tmp_path / "data").exists()


def test_another_database_than_the_offices_is_not_shown_as_its(tmp_path: Path, shell: Shell) -> None:
    said = shell("voice list --sql", f"sqlite:///{tmp_path}/other.db", fails=True)
    assert "keeps another database than this command names" in said


OFFICE = ("consent.office.office", "consent.archive.keys", "consent.archive.vault", "consent.ledger.books")
KEYLESS = ("gateway", "consent/commands", "model")
BESIDE = {"consent.archive.keys": {"write_private"}}
"""Names that open no key."""


def test_who_asks_the_office_imports_nothing_that_opens_keys() -> None:
    """Read from the syntax trees; what they import indirectly they do not call."""
    found = []
    for folder in KEYLESS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module in OFFICE:
                    names = {alias.name for alias in node.names} - BESIDE.get(node.module, set())
                    found += [f"{path.relative_to(ROOT)}: {node.module}: {name}" for name in sorted(names)]
    assert found == []
