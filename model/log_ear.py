"""Lines of the log handed on to whoever keeps them by call: the front of a gateway, over a unix socket.

Handing one on neither waits nor fails: where nobody listens, or whoever listens is behind, the line is lost
here, and the log has it all the same.
"""

from __future__ import annotations

import socket
from typing import Final

EAR_VARIABLE: Final = "VOICEGATE_LOG_EAR"
"""The socket's path; the supervisor sets it."""
MAX_LINE: Final = 16_384
"""Bytes; longer lines are not handed on."""


class LogEar:
    """The way to the socket at `path`, a stream: opened when there is something to say, and when it broke."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._torn = False
        """the last line went out in part"""

    def tell(self, line: str) -> None:
        """Hands one line on, if that is possible now."""
        data = line.encode(errors="backslashreplace") + b"\n"
        if len(data) > MAX_LINE:
            return
        if self._socket is not None and self._told(self._socket, data):
            return
        if self._socket is None:  # it was never open, or whoever listened is another one by now
            try:
                ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            except OSError:
                return
            ear.setblocking(False)
            try:
                ear.connect(self._path)
            except OSError:
                ear.close()
                return
            self._socket, self._torn = ear, False
            self._told(ear, data)

    def _told(self, ear: socket.socket, data: bytes) -> bool:
        """Whether the line was handed on, if only in part."""
        whole = b"\n" + data if self._torn else data
        try:
            put = ear.send(whole, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False  # whoever listens is behind
        except OSError:
            self._socket = None
            ear.close()
            return False
        self._torn = put < len(whole)
        return True
