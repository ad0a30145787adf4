"""The runtime directory: where the house's processes find each other.

Owner-only (0700) and short, because a unix socket's path may have about 107 bytes. It holds the sockets and
this boot's token; it belongs to one gateway (one data directory) and goes when that gateway stops.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import StartError

SOCKET_PATH_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Runtime:
    """Paths of one gateway's runtime directory."""

    path: Path

    @property
    def front(self) -> Path:
        """RPC of the front; lines, halls and the engine connect."""
        return self.path / "front.sock"

    def hall(self, name: str) -> Path:
        """RPC of a hall; the front and the lines connect."""
        return self.path / f"{name}.sock"

    def ticks(self, hall: str) -> Path:
        """Where a hall takes ticks (SOCK_SEQPACKET)."""
        return self.path / f"{hall}.tick"

    @property
    def edge_port(self) -> Path:
        """Says at which port of this host the edge hears lines."""
        return self.path / "edge-port"

    @property
    def engine(self) -> Path:
        """The engine's WebSocket."""
        return self.path / "engine.sock"

    @property
    def ears(self) -> Path:
        """Where words are heard; the engine connects."""
        return self.path / "ears.sock"

    @property
    def log(self) -> Path:
        """Where lines of calls' logs are kept; all processes hand theirs on."""
        return self.path / "log.sock"

    @property
    def redis(self) -> Path:
        """The embedded Redis."""
        return self.path / "redis.sock"

    @property
    def lives(self) -> Path:
        """Says how the house's processes fare (`gateway.ipc.process_lives`)."""
        return self.path / "lives.json"

    def failure(self, name: str) -> Path:
        """Where the process of that name says why it failed."""
        return self.path / f"{name}.failed"

    @property
    def lock(self) -> Path:
        """The file that a running gateway holds locked."""
        return self.path / "lock"

    def held(self) -> bool:
        """Whether a gateway runs here."""
        try:
            with self.lock.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def token(self) -> str:
        """The boot's token. Raises `StartError` when no gateway runs here."""
        try:
            return (self.path / "token").read_text().strip()
        except FileNotFoundError:
            raise StartError(f"no gateway runs with this data directory ({self.path} has no token)") from None

    def booted_at(self) -> float:
        """When this boot began, seconds since the epoch. Raises `StartError` when no gateway runs here."""
        self.token()
        return (self.path / "token").stat().st_mtime

    def new_token(self) -> str:
        """Makes a token for this boot, readable by the owner only."""
        token = secrets.token_hex(32)
        path = self.path / "token"
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(token)
        return token


def runtime_for(data_dir: Path) -> Runtime:
    """The runtime directory of the gateway that keeps its things in `data_dir`, made when absent.

    Under `XDG_RUNTIME_DIR` where there is one, else under the temporary directory. Raises `StartError` when
    the directory belongs to somebody else or others may look into it.
    """
    mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base or "", f"vg-{mark}")
    if not base or not os.path.isdir(base) or len(str(path)) > SOCKET_PATH_LIMIT - 16:
        path = Path(tempfile.gettempdir(), f"vg-{os.getuid()}-{mark}")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = path.lstat()
    except OSError as error:
        raise StartError(
            f"the runtime directory {path} cannot be made ({error.strerror}); "
            "set XDG_RUNTIME_DIR to a directory of yours that can be written, or unset it"
        ) from None
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or stat.S_IMODE(seen.st_mode) & 0o077:
        raise StartError(f"{path} must be a directory that only you can open; remove it and start again")
    return Runtime(path)
