"""The front's certificate: whose files are looked at now and then, so that a new one needs no restart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gateway.config.authorities import authorities_in
from gateway.config.certificate import Certificate, asking
from gateway.config.paths import certificate_paths
from gateway.config.settings import Settings
from gateway.errors import SettingsError

LOOK_EVERY_S: Final = 10.0

log = structlog.get_logger("front")


class CertificateWatch:
    """`certificate` is None where the settings want none. Raises `SettingsError` when it does not hold."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.certificate = Certificate(*certificate_paths(settings)) if settings.tls else None
        self.self_signed = settings.tls_certificate is None
        self._look_too: list[Callable[[], None]] = []

    def look_too(self, look: Callable[[], None]) -> None:
        """Whose files are looked at as well: it raises `SettingsError` once for what does not hold."""
        self._look_too.append(look)

    def for_telephones(self, trunks: str = "") -> ssl.SSLContext | None:
        """What SIP over TLS shows, and what it asks of clients.

        `trunks`: authorities (PEM) of trunks that are known by their certificates.
        """
        conf = self._settings
        if self.certificate is None or not conf.sip_tls:
            return None
        return self.certificate.serving(
            clients=conf.tls_clients, authorities=conf.tls_client_ca, trunks=trunks
        )

    def client_authorities(self) -> frozenset[str]:
        """Fingerprints of those of which telephones need a certificate; none where they need none.

        Raises `SettingsError`.
        """
        conf = self._settings
        if conf.tls_clients != "required" or conf.tls_client_ca is None:
            return frozenset()
        return frozenset(authorities_in(conf.tls_client_ca, "VOICEGATE_TLS_CLIENT_CA"))

    def for_browsers(self) -> ssl.SSLContext | None:
        """What the page shows."""
        return None if self.certificate is None or not self._settings.https else self.certificate.serving()

    def for_servers(
        self, authorities: Path | None = None, certificate: Certificate | None = None
    ) -> ssl.SSLContext:
        """What servers are checked by that we connect to, and what they see, where it is not the house's."""
        return asking(authorities or self._settings.tls_trust, certificate or self.certificate)

    def shown(self) -> str:
        """For the start panel: whose certificate, and its SHA-256 fingerprint."""
        if self.certificate is None:
            return ""
        kind = "signed by this gateway itself" if self.self_signed else str(self._settings.tls_certificate)
        return f"{kind}, SHA-256 {self.certificate.fingerprint}"

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> str | None:
        """Takes a new certificate; one that does not hold is logged, and the old one stays: returns why."""
        refused = []
        for look in (self._look_at_own, *self._look_too):
            try:
                look()
            except SettingsError as error:
                log.error("certificate.refused", error=str(error))
                refused.append(str(error))
        return "; ".join(refused) or None

    def _look_at_own(self) -> None:
        if self.certificate is not None and self.certificate.changed():
            log.info("certificate.changed", sha256=self.certificate.fingerprint)
