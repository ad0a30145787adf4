"""Each process says why it fails, in a file and as one JSON line; real processes, broken on purpose."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import remedy
from tests.needs import HANGS_S


def run(folder: Path, place: str, *argv: str, **environ: str) -> tuple[int, str | None, list[str]]:
    """Its status, what it left in its file (None: nothing), and the lines of its stderr."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VOICEGATE_")}
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[3])])
    said = folder / "part.failed"
    done = subprocess.run(
        [sys.executable, "-m", "gateway.run.entry", str(said), place, *argv],
        env=kept | {"PYTHONPATH": path, "VOICEGATE_DATA_DIR": str(folder / "data")} | environ,
        capture_output=True, text=True, timeout=HANGS_S, check=False,
    )  # fmt: skip
    return done.returncode, said.read_text() if said.exists() else None, done.stderr.splitlines()


BROKEN = {
    "RuntimeError: boom": "raise RuntimeError('boom')",
    "no port; take another": "from gateway.errors import LineError\nraise LineError('no port; take another')",
    "it is not set": "raise SystemExit('it is not set')",
    "KeyError: 'x'": "raise KeyError('x')",
    f"voicegate needs no_such, which is not installed; install voicegate again: {remedy.install_again()}": (
        "import no_such"
    ),
    "Missing option '--keys'.": (
        "import click\n@click.command()\n@click.option('--keys', required=True)\ndef main(keys): pass"
    ),
    "no keys": "import click\n@click.command()\ndef main(): raise click.ClickException('no keys')",
    "ZeroDivisionError: division by zero": "def main(): 1 / 0",
    "OSError: [Errno 28] No space left on device": (
        "import asyncio\n"
        "async def work(): raise OSError(28, 'No space left on device')\n"
        "async def both():\n async with asyncio.TaskGroup() as group: group.create_task(work())\n"
        "def main(): asyncio.run(both())"
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_it_fails_with_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN[text])
    status, said, lines = run(tmp_path, "broken:main")
    assert said == text
    assert status != 0
    event = json.loads(lines[-1])
    assert (event["event"], event["process"], event["error"]) == ("process.failed", "part", text)
    assert not any(line.startswith("Traceback") for line in lines), "the traceback is inside the JSON line"


def test_a_process_that_ends_well_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "well.py").write_text("import sys\ndef main(): assert sys.argv[1:] == ['--name', 'x']")
    (tmp_path / "part.failed").write_text("of an earlier boot")
    assert run(tmp_path, "well:main", "--name", "x") == (0, None, [])


@pytest.mark.parametrize("status", [0, 3])
def test_an_exit_status_is_kept(tmp_path: Path, status: int) -> None:
    (tmp_path / "exits.py").write_text(f"def main(): raise SystemExit({status})")
    said = None if status == 0 else "it ended with status 3"
    assert run(tmp_path, "exits:main")[:2] == (status, said)


@pytest.mark.parametrize(
    ("place", "argv", "environ", "text"),
    [
        ("gateway.hall.__main__:main", "--name hall0", {"HALLS": "none"}, "VOICEGATE_HALLS: "),
        ("gateway.hall.__main__:main", "--name hall0", {"BOOT_TOKEN": "x"}, "no public keys of grants"),
        ("gateway.front.__main__:main", "", {"BOOT_TOKEN": "x"}, "watermark-keys.json does not exist"),
        ("gateway.line.web:main", "", {}, "Missing option '--name'."),
        ("gateway.rtp.sip_process:main", "", {}, "Missing option '--number'."),
        ("model.server:main", "--keys /no/keys", {}, "'/no/keys' does not exist"),
        (
            "gateway.run.prepare:main",
            "",
            {"SQL_URL": "postgresql://u:pw@127.0.0.1:1/x"},
            "VOICEGATE_SQL_URL: ",
        ),
        ("gateway.run.redis_server:main", "", {"NONSENSE": "1"}, "VOICEGATE_NONSENSE is not a setting"),
        ("watermark.cli:serve", "--keys /no/keys", {}, "/no/keys does not exist"),
    ],
)
def test_our_own_processes_say_it_in_one_line(
    tmp_path: Path, place: str, argv: str, environ: dict[str, str], text: str
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    status, said, lines = run(
        tmp_path, place, *argv.split(), **{f"VOICEGATE_{k}": v for k, v in environ.items()}
    )
    assert status != 0
    assert said is not None
    assert text in said, said
    assert "\n" not in said
    assert "pw" not in said
    assert not any(line.startswith("Traceback") for line in lines), lines


def test_a_port_that_was_taken_meanwhile(tmp_path: Path) -> None:
    """uvicorn prints the error and exits with a number."""
    (tmp_path / "keys.json").write_text(
        '{"keys": [{"id": "wm-1", "gateway": 1, "secret": "%s"}]}' % ("A" * 44)
    )
    (tmp_path / "keys.json").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        argv = ("--keys", str(tmp_path / "keys.json"), "--port", port)
        said = run(tmp_path, "watermark.cli:serve", *argv)[1]
    assert said is not None
    assert said.startswith("OSError: [Errno 98]"), said


def test_a_crash_leaves_no_core_file(tmp_path: Path) -> None:
    """Neither a file nor a program gets the words and keys that were in its memory, or in its forks'."""
    (tmp_path / "crashes.py").write_text(
        "import ctypes, os, resource, sys\n"
        "def main():\n"
        "    PR_GET_DUMPABLE = 3\n"
        "    if child := os.fork():\n"
        "        status = os.waitpid(child, 0)[1]\n"
        "    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(PR_GET_DUMPABLE),\n"
        "          child and os.WCOREDUMP(status), file=sys.stderr, flush=True)\n"
        "    child or os.abort()\n"
    )
    status, said, lines = run(tmp_path, "crashes:main")
    assert (status, said) == (0, None)
    assert [line for line in lines if line.startswith("(")] == ["(0, 0) 0 0", "(0, 0) 0 False"]


def test_no_process_of_the_gateway_loads_what_only_its_libraries_would_use(tmp_path: Path) -> None:
    unused = ("rich", "pygments", "opentelemetry")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gateway.run import entry\n"
        f"said = Path({str(tmp_path / 'hall.failed')!r})\n"
        "assert entry.live(said, 'gateway.hall.__main__:main', ['--help']) == 0\n"
        "loaded = {name for name, module in sys.modules.items() if module is not None}\n"
        "assert {'structlog', 'redis', 'httpx'} <= loaded\n"
        f"print(sorted(name for name in loaded if name.partition('.')[0] in {unused}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS_S, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
