"""A start as its operator sees it, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.gateway_process import House

pytestmark = pytest.mark.e2e

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A gateway that is started from a terminal."""

    def __init__(self, house: House, **environ: str) -> None:
        house.folder.mkdir()
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "run"],
            env=house.environ | {"TERM": "xterm-256color", "COLUMNS": "120"} | environ,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._shown = b""

    def until(self, words: str, within_s: float = 60.0) -> list[str]:
        """Lines shown until `words` are, or it ends; without colours, and a line drawn anew is a new one."""
        deadline = time.monotonic() + within_s
        while words not in self.lines()[-1] and time.monotonic() < deadline:
            if not select.select([self._ours], [], [], 0.5)[0]:
                continue
            try:
                self._shown += os.read(self._ours, 1 << 16)
            except OSError:  # the other end was closed
                break
        return self.lines()

    def lines(self) -> list[str]:
        plain = ESCAPES.sub("", self._shown.decode(errors="replace"))
        return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()] or [""]

    def stop(self) -> int:
        """Ctrl-C, and the exit status."""
        self._process.send_signal(signal.SIGINT)
        self.until("no such words")
        return self._process.wait(20)

    def ended(self) -> int:
        return self._process.wait(20)


def test_a_start_on_a_terminal_is_one_line_and_then_the_panel(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    terminal = Terminal(house)
    lines = terminal.until("Ctrl-C stops it")
    progress, panel = [line for line in lines if "…" in line], [line for line in lines if "…" not in line]
    steps = list(dict.fromkeys(re.sub(r"^\S+ voicegate: ", "", line) for line in progress))
    assert steps[0] == "keys and database…", steps
    assert any(re.match(r"waiting for .*(engine|lines|hall)", step) for step in steps), (
        steps
    )  # whoever is last
    assert panel[0].startswith("╭"), panel
    assert panel[-1].startswith("╰"), panel
    assert all(line.startswith("│") for line in panel[1:-1]), panel
    assert house.uri in panel[1]
    log = house.folder / "data" / "voicegate.log"
    assert str(log) in "".join(panel), "the panel says where the log is"
    assert '"event": "front.up"' in log.read_text()
    assert terminal.stop() == 0
    after = terminal.lines()[len(lines) :]
    assert all("…" in line for line in after), after


def test_on_a_terminal_a_failure_is_one_line_that_quotes_it(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    broken = tmp_path / "broken"
    broken.mkdir()
    # aiortc is there, and breaks when it is imported
    (broken / "aiortc.py").write_text("raise OSError('libopus.so.0: cannot open shared object file')")
    terminal = Terminal(house, PYTHONPATH=f"{broken}:{Path(__file__).parents[2]}")
    lines = terminal.until("Error:")
    assert terminal.ended() == 1
    told = [line for line in lines if "…" not in line]
    log = house.folder / "data" / "voicegate.log"
    assert told == [
        "Error: web0 does not start: OSError: libopus.so.0: cannot open shared object file; "
        f"the log is {log}"
    ]  # fmt: skip
    assert '"event": "process.failed"' in log.read_text()


def test_elsewhere_the_log_is_json_and_the_panel_is_printed(own_house: object, tmp_path: Path) -> None:
    house = own_house()  # type: ignore[operator]
    assert house.events("front.up")
    assert "voicegate: " not in house.log(), "progress is for terminals"


def _of_the_house(pid: int) -> list[int]:
    """This process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _of_the_house(int(child)))]


def test_no_process_of_the_house_leaves_a_core_file(house: House) -> None:
    assert house.process is not None
    found = _of_the_house(house.process.pid)
    assert set(house.pids().values()) <= set(found), "lines, ears, engine, halls, front, office, Redis"
    limits = {pid: Path(f"/proc/{pid}/limits") for pid in found}
    core = {
        pid: re.search(r"Max core file size +(\w+) +(\w+)", path.read_text()) for pid, path in limits.items()
    }
    assert {match and match.groups() for match in core.values()} == {("0", "0")}
    if os.geteuid():  # the kernel gives files of /proc to root where nothing may be dumped
        ours = set(found) - {house.pids()["redis"]}  # a program that is not ours has the limit only
        assert {limits[pid].stat().st_uid for pid in ours} == {0}
