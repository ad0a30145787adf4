"""An rtpengine of the test's own on loopback, in user space: a relay that encrypts and transcodes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.gateway_process import free_port
from tests.needs import HANGS_S, need_program


@contextlib.contextmanager
def rtpengine(folder: Path) -> Iterator[int]:
    """Yields where it takes commands (its "ng" protocol over UDP)."""
    port, log = free_port(), folder / "rtpengine.log"
    words = f"--table=-1 --foreground --log-stderr --log-level=6 --num-threads=1 --listen-ng=127.0.0.1:{port}"
    media = "--delete-delay=0 --interface=127.0.0.1 --port-min=20000 --port-max=20999"
    command = [need_program("rtpengine", "rtpengine-daemon"), *words.split(), *media.split()]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _await_port(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait(HANGS_S)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Nothing in another process can be awaited."""
    deadline = time.monotonic() + HANGS_S
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while True:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, "rtpengine does not answer"
            sock.sendto(b"1 d7:command4:pinge", ("127.0.0.1", port))
            with contextlib.suppress(OSError):
                assert b"pong" in sock.recv(4096)
                return
