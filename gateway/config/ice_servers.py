"""STUN and TURN servers that browsers are told of, with passwords that hold for a call.

A TURN server that knows the secret (coturn: `use-auth-secret`, `static-auth-secret`) computes each password
itself: the name says until when it holds, and the password is the name's HMAC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass, field
from typing import Final

from gateway.config.settings import Settings
from gateway.errors import SettingsError

AFTER_CALL_S: Final = 600
"""A password outlives the longest call by so much: a relay is renewed with it while the call goes on."""
LEAST_SECRET: Final = 16
OTHERS: Final = 0o007


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server, as a browser or a WHIP client takes it."""

    url: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def for_page(self) -> dict[str, str]:
        """As `RTCPeerConnection` takes it."""
        found = {"urls": self.url, "username": self.username, "credential": self.credential}
        return {name: value for name, value in found.items() if value is not None}

    def link(self) -> str:
        """As a `Link` header (RFC 9725 §4.6)."""
        said = f'<{self.url}>; rel="ice-server"'
        if self.username is None:
            return said
        return (
            f'{said}; username="{self.username}"; credential="{self.credential}"; credential-type="password"'
        )


class IceServers:
    """Those of the settings. Raises `SettingsError` when the secret cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._urls = settings.ice_servers
        self._lasts_s = settings.max_call_s + AFTER_CALL_S
        self._secret = _secret(settings)
        if self._secret is None and any(url.startswith("turn") for url in self._urls):
            raise SettingsError(
                "VOICEGATE_ICE_SERVERS names a TURN server: set VOICEGATE_TURN_SECRET_FILE too"
            )

    def now(self) -> list[IceServer]:
        """With passwords that hold from now on for the longest call."""
        if self._secret is None:
            return [IceServer(url) for url in self._urls]
        name = f"{int(time.time() + self._lasts_s)}:voicegate"
        mac = hmac.new(self._secret, name.encode(), hashlib.sha1).digest()
        password = base64.b64encode(mac).decode()
        return [
            IceServer(url, name, password) if url.startswith("turn") else IceServer(url) for url in self._urls
        ]


def _secret(settings: Settings) -> bytes | None:
    path = settings.turn_secret_file
    if path is None:
        return None
    try:
        if path.stat().st_mode & OTHERS:
            raise SettingsError(
                f"VOICEGATE_TURN_SECRET_FILE: every user of this machine may read {path}; chmod 600 {path}"
            )
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"VOICEGATE_TURN_SECRET_FILE: {path}: {error.strerror}") from None
    if len(secret) < LEAST_SECRET:
        raise SettingsError(f"VOICEGATE_TURN_SECRET_FILE: {path} has fewer than {LEAST_SECRET} characters")
    return secret
