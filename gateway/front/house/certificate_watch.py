"""The front's certificate: whose files are looked at now and then, so that a new one needs no restart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog

from gateway.config.certificate import Certificate, trusting
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

    def for_telephones(self) -> ssl.SSLContext | None:
        """What SIP over TLS shows, and what it asks of clients."""
        conf = self._settings
        if self.certificate is None or not conf.sip_tls:
            return None
        return self.certificate.serving(clients=conf.tls_clients, authorities=conf.tls_client_ca)

    def for_browsers(self) -> ssl.SSLContext | None:
        """What the page shows."""
        return None if self.certificate is None or not self._settings.https else self.certificate.serving()

    def for_servers(self) -> ssl.SSLContext:
        """What servers are checked by that we connect to."""
        authorities: Path | None = self._settings.tls_trust
        return trusting(authorities) if self.certificate is None else self.certificate.asking(authorities)

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

    def look(self) -> None:
        """Takes a new certificate; one that does not hold is logged once, and the old one stays."""
        if self.certificate is None:
            return
        try:
            if self.certificate.changed():
                log.info("certificate.changed", sha256=self.certificate.fingerprint)
        except SettingsError as error:
            log.error("certificate.refused", error=str(error))
