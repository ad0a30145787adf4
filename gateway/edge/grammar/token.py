"""The signed word in our Record-Route and Contact: which line a dialog is on and where its caller is.

It is all that a restarted edge needs to route a running call's requests, and the reason why none is ever
sent to an address that a caller wrote. The key is kept beside the data, so that it outlives a boot.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.edge.grammar.sip_message import Request
from gateway.errors import StartError

KEY_BYTES: Final = 32
PARAM: Final = "vg"
WEB_LINE: Final = "web"
"""In the place of a line's name: the edge itself has the dialog, and a web line the sound."""
_MAC: Final = 12
_WORD: Final = re.compile(rf";{PARAM}=([A-Za-z0-9_-]{{16,512}})")


@dataclass(frozen=True, slots=True)
class RouteToken:
    """`line` by name and loopback port; the caller's `transport`, `host` and `port` as its INVITE arrived."""

    call_id: str
    line: str
    line_port: int
    transport: str
    host: str
    port: int

    def sign(self, key: bytes) -> str:
        """URI-parameter safe text."""
        fields = (self.call_id, self.line, str(self.line_port), self.transport, self.host, str(self.port))
        body = "|".join(fields).encode()
        mac = hmac.new(key, body, hashlib.sha256).digest()[:_MAC]
        return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str | None, key: bytes) -> Self | None:
        """None for anything we did not sign."""
        if not text:
            return None
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            mac, body = raw[:_MAC], raw[_MAC:]
            if not hmac.compare_digest(mac, hmac.new(key, body, hashlib.sha256).digest()[:_MAC]):
                return None
            call_id, line, line_port, transport, host, port = body.decode().split("|")
            return cls(call_id, line, int(line_port), transport, host, int(port))
        except ValueError:
            return None

    @classmethod
    def of(cls, request: Request, key: bytes) -> Self | None:
        """The word in the topmost Route, else in the Request-URI; None when neither has one of ours."""
        routes = request.headers.getlist("Route")
        for text in (*(route.partition(",")[0] for route in routes[:1]), str(request.uri)):
            if (found := _WORD.search(text)) and (token := cls.read(found[1], key)) is not None:
                return token
        return None


def route_key(path: Path) -> bytes:
    """The key in the file, made when absent (owner only). Raises `StartError` when it is not such a file."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
    except FileExistsError:
        pass
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from None
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from None
    if len(key) != KEY_BYTES:  # an empty one would sign what anybody can sign
        raise StartError(f"{path} does not hold a key of {KEY_BYTES} bytes; remove it, and a new one is made")
    return key
