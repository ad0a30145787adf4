"""A Ray Serve cluster for a test: real replicas on loopback, gone when the test is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.gateway_process import _runs
from tests.needs import HANGS_S

READY_WITHIN_S = 150.0
TOKEN = "a-token-of-engines-and-gateway"


class Cluster:
    """`python -m deploy.ray.local` with two replicas of each engine; `engines` are {name: its front}."""

    def __init__(
        self, folder: Path, port: int, keys: Path, engines: dict[str, str], **environ: object
    ) -> None:
        self.port = port
        self.log_path = folder / "cluster.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VOICEGATE_")}
        ours = {f"VOICEGATE_{name.upper()}": str(value) for name, value in environ.items()}
        # where this checkout is, and whatever this interpreter knows beside its own site-packages
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        self._environ = {
            **clean, **ours, "VOICEGATE_ENGINE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", "PYTHONPATH": path,
        }  # fmt: skip
        named = [word for engine, front in engines.items() for word in ("--engine", engine, "--front", front)]
        self._argv = [sys.executable, "-m", "deploy.ray.local", *named, "--keys", str(keys)]
        self._argv += ["--port", str(port)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._environ, cwd=Path(__file__).parents[2], stdout=log, stderr=log
            )
        self._pids: set[int] = set()

    def url(self, engine: str) -> str:
        return f"http://127.0.0.1:{self.port}/{engine}"

    def wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while "\nready" not in self.log_path.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the cluster did not start:\n{self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-6000:]

    def engines(self, engine: str) -> list[dict[str, Any]]:
        """What the placement says, by replica."""
        request = urllib.request.Request(
            self.url(engine) + "/v1/engines", headers={"X-Voicegate-Boot": TOKEN}
        )
        with urllib.request.urlopen(request, timeout=HANGS_S) as answer:  # Serve's proxy has no hurry
            found = list(json.loads(answer.read())["engines"])
        self._pids |= {replica["pid"] for replica in found}
        return found

    def kill_the_one_in_use(self, engine: str) -> str:
        """Kills -9 the replica that has the conversation; answers its name."""
        (busy,) = [replica for replica in self.engines(engine) if replica["used"]]
        os.kill(busy["pid"], signal.SIGKILL)
        return str(busy["replica"])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise AssertionError(f"the cluster did not stop:\n{self.log()}") from None
        deadline = time.monotonic() + 10
        while left := [pid for pid in self._pids if _runs(pid)]:
            assert time.monotonic() < deadline, f"replicas {left} were left behind"
            time.sleep(0.1)
