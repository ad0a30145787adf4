"""The ports that the gateway listens on, and what to do when one cannot be bound."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from gateway.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Port:
    """One port and the setting that names it."""

    setting: str
    number: int
    kind: socket.SocketKind
    what: str

    def bind(self, host: str) -> socket.socket:
        """A bound socket. Raises `OSError`; `refusal` puts it into words."""
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, self.kind)
        try:
            if bound.family == socket.AF_INET6:  # "::" is every address, of IPv4 too
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            if self.kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, self.number))
        except OSError:
            bound.close()
            raise
        return bound

    def refusal(self, host: str, error: OSError) -> str:
        """Says why the port cannot be bound, and what to do."""
        reason = f"cannot bind {host}:{self.number} for {self.what} ({error.strerror or error})"
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            remedy = "an address of this machine, to 0.0.0.0 for all of IPv4, or to :: for all"
            return f"{reason}; set VOICEGATE_HOST to {remedy}"
        if error.errno == errno.EACCES:
            return f"{reason}; ports below 1024 are for root: set {self.setting} to a higher one"
        return f"{reason}; stop the program that holds it or set {self.setting} to another port"


def sip_port(settings: Settings, kind: socket.SocketKind) -> Port:
    """The port for SIP over UDP (`SOCK_DGRAM`) or TCP (`SOCK_STREAM`)."""
    transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    return Port("VOICEGATE_SIP_PORT", settings.sip_port, kind, f"SIP over {transport}")


def http_port(settings: Settings) -> Port:
    """The port of the page, the API and the metrics."""
    return Port("VOICEGATE_HTTP_PORT", settings.http_port, socket.SOCK_STREAM, "HTTP")


def sip_tls_port(settings: Settings) -> Port:
    """The port for SIP over TLS."""
    return Port("VOICEGATE_SIP_TLS_PORT", settings.sip_tls, socket.SOCK_STREAM, "SIP over TLS")


def https_port(settings: Settings) -> Port:
    """The page's port over https."""
    return Port("VOICEGATE_HTTPS_PORT", settings.https, socket.SOCK_STREAM, "https")


def all_ports(settings: Settings) -> list[Port]:
    """Every port of these settings except RTP's."""
    found = [
        sip_port(settings, socket.SOCK_DGRAM),
        sip_port(settings, socket.SOCK_STREAM),
        http_port(settings),
    ]
    if settings.sip_tls:
        found.append(sip_tls_port(settings))
    if settings.https:
        found.append(https_port(settings))
    if settings.detector:
        found.append(Port("VOICEGATE_DETECTOR_PORT", settings.detector, socket.SOCK_STREAM, "the detector"))
    return found
