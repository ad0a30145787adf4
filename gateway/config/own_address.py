"""The address at which others reach this gateway, for what it says of itself."""

from __future__ import annotations

import socket

from gateway.config.settings import Settings


def reached_at(settings: Settings) -> str:
    """The address that a telephone dials."""
    if settings.public_address:
        return settings.public_address
    if settings.host not in ("0.0.0.0", "::"):  # noqa: S104 - compared only
        return settings.host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks the kernel which address it would use
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
