"""Whatever a process says on stderr is a JSON line: ours, a library's, a warning, a thread's last word."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.needs import HANGS_S

SCRIPT = """
import logging, threading, warnings, sys, asyncio
import structlog
from model import json_log

json_log.configure("me")
structlog.get_logger("x").info("ours", call_id="c1", boot_token="hush")
structlog.get_logger("x").debug("unheard")
logging.getLogger("uvicorn.error").error("broken %s", "pipe")
logging.getLogger("lib").log(35, "of a level that structlog has not")
logging.getLogger("lib").warning("%d fits not", "this")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("lib").exception("with a traceback")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start(); thread.join()

class Bad:
    def __del__(self):
        raise ValueError("in del")
Bad()

async def forgotten():
    asyncio.get_running_loop().call_exception_handler({"message": "a handler failed"})
asyncio.run(forgotten())
"""


def said(script: str = SCRIPT, **environ: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path), **environ},
    )  # fmt: skip
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_line_is_json_and_names_its_process() -> None:
    lines = said()
    assert [line["process"] for line in lines] == ["me"] * len(lines)
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert lines[0]["boot_token"] == "***"
    events = [str(line["event"]) for line in lines]
    assert events[:3] == ["ours", "broken pipe", "of a level that structlog has not"]
    assert events[3].startswith("%d fits not (TypeError: ")
    assert events[4] == "with a traceback"
    assert "ZeroDivisionError" in str(lines[4]["exception"])
    assert "old" in events[5]
    assert events[6:] == ["thread.failed", "unraisable", "a handler failed"]
    assert "in del" in str(lines[7]["error"])


def test_the_level_is_the_supervisors_for_a_process_that_reads_no_settings() -> None:
    assert [line["event"] for line in said(VOICEGATE_LOG_LEVEL="debug")][1] == "unheard"
    assert "ours" not in [line["event"] for line in said(VOICEGATE_LOG_LEVEL="warning")]
    assert said(VOICEGATE_LOG_LEVEL="nonsense")[0]["event"] == "ours"


FULL = """
import resource, sys
import structlog
from model import json_log

log = structlog.get_logger("x")
json_log.configure("me")
log.info("before")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
for number in range(3):
    log.info("lost", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.info("after")
log.info("and after")
"""


def logged(script: str, path: Path) -> list[dict[str, object]]:
    """The lines of a process whose log is a file."""
    with path.open("ab") as file:
        environ = {"PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", script], stderr=file, check=True, env=environ)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_full_disk_stops_nobody_and_the_lines_that_are_missing_are_counted(tmp_path: Path) -> None:
    lines = logged(FULL, tmp_path / "log")
    assert [line["event"] for line in lines] == ["before", "log.lost", "after", "and after"]
    assert {key: lines[1][key] for key in ("process", "level", "lines", "error")} == {
        "process": "me", "level": "error", "lines": 3, "error": "File too large",
    }  # fmt: skip


def test_a_line_that_is_there_in_part_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("{}\n")
    script = FULL.replace("(1, hard)", "(150, hard)")  # room for the first line and a piece
    logged_all = subprocess.run(
        [sys.executable, "-c", script], stderr=path.open("ab"), check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert logged_all.returncode == 0
    read = []
    for line in path.read_text().splitlines():
        try:
            read.append(json.loads(line).get("event"))
        except ValueError:
            read.append("torn")
    assert read == [None, "before", "torn", "log.lost", "after", "and after"]


def test_a_device_that_is_full_from_the_first_line_on_ends_nobody() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stderr=full, env={"PYTHONPATH": ":".join(sys.path)}
        )
    assert done.returncode == 0


def test_who_does_not_read_a_log_keeps_nobody_waiting() -> None:
    """Its pipe holds 64 kB; this is a megabyte, and the reader begins when it is over."""
    script = """
import sys
import structlog
from model import json_log
json_log.configure("me")
log = structlog.get_logger("x")
for number in range(1000):
    log.info("said", number=number, text="x" * 1000)
sys.stdout.write("said it all")
sys.stdout.flush()
sys.stdin.read(1)
log.info("read at last")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(11) == b"said it all"
    read = b""
    os.set_blocking(process.stderr.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            read += os.read(process.stderr.fileno(), 65536)
    os.set_blocking(process.stderr.fileno(), True)
    process.stdin.write(b"x")
    process.stdin.close()
    while piece := os.read(process.stderr.fileno(), 65536):
        read += piece
    assert process.wait(HANGS_S) == 0
    lines = [json.loads(line) for line in read.splitlines()]
    kept = [line for line in lines if line["event"] == "said"]
    lost = [
        line["lines"] for line in lines if line["event"] == "log.lost"
    ]  # where a short line still fits, too
    assert len(kept) < 100
    assert len(kept) + sum(lost) == 1000
    assert lines[-1]["event"] == "read at last"
