"""What is looked at before anything is started, so that a wrong setting is one sentence and no crash."""

from __future__ import annotations

import socket

from gateway.config.settings import Settings
from gateway.errors import StartError
from model.address import is_safe


def check_ports(settings: Settings) -> None:
    """Raises `StartError` for a port that somebody else holds, before anything is started."""
    wanted = [
        ("VOICEGATE_SIP_PORT", settings.sip_port, socket.SOCK_DGRAM, "SIP over UDP"),
        ("VOICEGATE_SIP_PORT", settings.sip_port, socket.SOCK_STREAM, "SIP over TCP"),
        ("VOICEGATE_HTTP_PORT", settings.http_port, socket.SOCK_STREAM, "HTTP"),
    ]
    if settings.detector_port:
        wanted.append(("VOICEGATE_DETECTOR_PORT", settings.detector_port, socket.SOCK_STREAM, "the detector"))
    for variable, port, kind, what in wanted:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise StartError(
                    f"cannot bind {settings.host}:{port} for {what} ({error.strerror}); "
                    f"stop the program that holds it or set {variable} to another port"
                ) from None


def check_engines(settings: Settings) -> None:
    """Raises `StartError` for engines that cannot be used, or not safely."""
    if not settings.engine_url:
        if settings.engine == "chroma" and settings.chroma is None:
            raise StartError(
                "VOICEGATE_ENGINE=chroma needs VOICEGATE_CHROMA: a directory, or FlashLabs/Chroma-4B"
            )
        return
    token = settings.engine_token
    if token is None or len(token.get_secret_value()) < 16:
        raise StartError("VOICEGATE_ENGINE_URL needs VOICEGATE_ENGINE_TOKEN, 16 characters or more")
    for url in settings.engine_url:
        if not url.startswith(("ws://", "wss://", "http://", "https://")):
            raise StartError(
                f"VOICEGATE_ENGINE_URL: {url} must begin with ws://, wss://, http:// or https://"
            )
        if not is_safe(url) and not settings.engine_plain:
            raise StartError(
                f"VOICEGATE_ENGINE_URL: {url} would send calls in the clear; use wss:// or https://, "
                "or VOICEGATE_ENGINE_PLAIN=1 on a private network"
            )
