"""A whole gateway for a test: real processes, its own ports and data directory, gone when the test is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from gateway.config.runtime import runtime_for
from gateway.store.sip_users import console_token
from tests.needs import HANGS_S, MODELS

READY_WITHIN_S = HANGS_S


def free_port() -> int:
    """A port free for UDP and TCP on loopback."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class House:
    """One gateway. `settings` are `VOICEGATE_*` by lower-case name."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.sip_port, self.http_port = free_port(), free_port()
        self.sip_tls_port, self.https_port = free_port(), free_port()
        """taken where it has a certificate: one is named, or others reach it"""
        self._host = "[::1]" if ":" in str(settings.get("host", "")) else "127.0.0.1"
        defaults: dict[str, Any] = {
            "sip_lines": 1, "narrow_calls": 4, "wide_calls": 4, "web_lines": 1, "models": MODELS,
            "admit_by_time": False,  # a machine that is busy with other tests refuses no call of this one
        }  # fmt: skip
        given = {
            **defaults,
            **settings,
            "sip_port": self.sip_port,
            "http_port": self.http_port,
            "sip_tls_port": self.sip_tls_port,
            "https_port": self.https_port,
            "data_dir": folder / "data",
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VOICEGATE_")}
        self.environ = clean | {f"VOICEGATE_{k.upper()}": str(v) for k, v in given.items()}
        self.log_path = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def _runtime(self) -> Path:
        return runtime_for(self.folder / "data").path

    @property
    def uri(self) -> str:
        return f"sip:demo@{self._host}:{self.sip_port}"

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.http_port}"

    def plan(self, text: str) -> None:
        """Routes in the place of those that come with it; to be called before `start`."""
        plans = self.folder / "data" / "dialplans"
        plans.mkdir(parents=True, exist_ok=True)
        (plans / "05-test.toml").write_text(text)

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            began = log.tell()  # what an earlier start wrote says nothing of this one
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "run"], env=self.environ, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while b"Ctrl-C stops it" not in self.log_path.read_bytes()[began:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the gateway did not start:\n{self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-8000:]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of that event."""
        lines = [
            line for line in self.log_path.read_text(errors="replace").splitlines() if line.startswith("{")
        ]
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def pids(self) -> dict[str, int]:
        return dict(json.loads((self._runtime / "pids.json").read_text()))

    def kill(self, name: str) -> int:
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def bearer(self) -> dict[str, str]:
        """The header that shows the console's token, which the gateway keeps in its data directory."""
        return {"Authorization": f"Bearer {console_token(self.folder / 'data')}"}

    def get(self, path: str) -> Any:
        asked = urllib.request.Request(self.url + path, headers=self.bearer)
        with urllib.request.urlopen(asked, timeout=HANGS_S) as answer:
            body = answer.read()
        return json.loads(body) if "json" in answer.headers["content-type"] else body.decode()

    def ready(self) -> bool:
        """What `/readyz` says; False while there is no front to ask."""
        try:
            return bool(self.get("/readyz")["ready"])
        except OSError:  # an HTTP 503 is one too
            return False

    def delete(self, path: str) -> None:
        urllib.request.urlopen(
            urllib.request.Request(self.url + path, headers=self.bearer, method="DELETE"), timeout=HANGS_S
        ).close()

    def calls(self) -> list[dict[str, Any]]:
        return list(self.get("/api/calls?limit=1000")["calls"])

    def wait_for(self, what: str, happened: Any, within_s: float = 10.0) -> float:
        """Polls (nothing in another process can be awaited); answers how long it took."""
        began = time.monotonic()
        while not happened():
            if time.monotonic() - began > within_s:
                raise AssertionError(f"{what} did not happen within {within_s} s\n{self.log()}")
            time.sleep(0.05)  # each question costs the front, whose calls go on meanwhile
        return time.monotonic() - began

    def stop(self) -> None:
        """Ctrl-C twice; nothing may be left."""
        if self.process is None:
            return
        pids = list(self.pids().values()) if self.process.poll() is None else []
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.1)
        try:
            self.process.wait(HANGS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the gateway did not stop:\n{self.log()}") from None
        finally:
            self.process = None
        left = [pid for pid in pids if _runs(pid)]
        assert not left, f"processes {left} were left behind"
        shutil.rmtree(self._runtime)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
