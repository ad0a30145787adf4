"""Whatever a process says on stderr is a JSON line: ours, a library's, a warning, a thread's last word."""

from __future__ import annotations

import json
import subprocess
import sys

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
