"""Whether anybody is at a SIP URI: from which address it is reached, and whether its port is closed."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
from typing import Final

from gateway.errors import CallerError

KNOCKS: Final = 4
REFUSALS: Final = 2
"""A port may be closed for a moment: one refusal is none."""
KNOCK_S: Final = 0.25
_URI: Final = re.compile(
    r"sips?:(?:[^@\s<>]+@)?(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?(?:;[^\s<>]*)?"
)


def local_address(uri: str) -> str:
    """Our address from which the URI's host is reached. Raises `CallerError`."""
    host, port, _ = _place_of(uri)
    with _connected(host, port) as probe:
        return str(probe.getsockname()[0])


class Doorbell:
    """Knocks at a URI's UDP port while a call is tried.

    A port that nobody listens at says so by ICMP, which a phone does not hear.
    """

    def __init__(self, uri: str) -> None:
        """Raises `CallerError` as `local_address` does."""
        host, port, udp = _place_of(uri)
        self._place = f"{host}:{port}"
        self._knocks = KNOCKS if udp else 0
        self._refusals = 0
        self._socket = _connected(host, port)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Knocks no more."""
        self._socket.close()

    def wait_for(self, phone: subprocess.Popen[bytes]) -> bytes:
        """All that the phone says until it ends. Raises `CallerError` when the port is closed."""
        assert phone.stdout is not None  # noqa: S101  # for mypy: stdout=PIPE in `_start`
        said = bytearray()
        while True:
            self._knock()
            pause_s = KNOCK_S if self._knocks else None
            if not select.select([phone.stdout], [], [], pause_s)[0]:
                continue
            if not (more := os.read(phone.stdout.fileno(), 1 << 16)):
                return bytes(said)
            said += more

    def _knock(self) -> None:
        """Sends an empty line, which SIP takes for a keep-alive; hears whether the one before was refused."""
        if not self._knocks:
            return
        self._knocks -= 1
        try:
            self._socket.send(b"\r\n\r\n")
        except ConnectionRefusedError:  # of the one before
            self._refusals += 1
        except OSError:
            self._knocks = 0
        if self._refusals == REFUSALS:
            raise CallerError(
                f"nothing listens at {self._place} (UDP): connection refused; "
                "does the gateway run, and is this its SIP port?"
            )


def _place_of(uri: str) -> tuple[str, int, bool]:
    """Host and port of a URI, and whether it is called by UDP. Raises `CallerError`."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise CallerError(f"{uri!r} is not a SIP URI; one looks like sip:demo@127.0.0.1:5060")
    port = int(match["port"] or 5060)
    if not 0 < port < 65536:
        raise CallerError(f"{uri!r}: {port} is not a port")
    return match["host"], port, "transport=t" not in uri.lower() and not uri.lower().startswith("sips:")


def _connected(host: str, port: int) -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect((host, port))
    except OSError as error:
        probe.close()
        raise CallerError(f"cannot reach {host}: {error.strerror or error}") from None
    return probe
