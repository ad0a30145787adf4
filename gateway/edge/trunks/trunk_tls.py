"""A trunk's TLS: what we show it, whose certificates are its own, and by which it is known when it connects.

Its files are looked at again while the gateway runs. New ones take effect at the next handshake, and an
authority that is not in the file any more is believed no more, on open connections neither. Files that do not
hold change nothing.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Mapping

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.config.authorities import AuthorityFile, authorities_in
from gateway.config.certificate import Certificate, Trust
from gateway.edge.flows.peer_certificate import PeerCertificate
from gateway.edge.flows.transport import Flow
from gateway.edge.trunks.trunk import FINGERPRINT, Trunk

log = structlog.get_logger("edge")


class TrunkTls:
    """One trunk's. Raises `SettingsError` for files that do not hold; what has ended holds (`ends`)."""

    def __init__(self, trunk: Trunk, trust: Trust) -> None:
        self.trunk = trunk
        self._trust = trust
        self._certificate: Certificate | None = None
        if trunk.certificate is not None and trunk.key is not None:
            named = (f"trunk {trunk.name}, certificate", f"trunk {trunk.name}, key")
            self._certificate = Certificate(trunk.certificate, trunk.key, named)
        self._authority: AuthorityFile | None = None
        if trunk.authority is not None:
            self._authority = AuthorityFile(trunk.authority, f"{self._named}, authority")
        self.asked = self._written()
        """the authorities (PEM) of which peers are asked for a certificate for this trunk's sake"""
        self._context: ssl.SSLContext | None = None

    @property
    def own(self) -> bool:
        """Whether it has anything that is not the house's."""
        return self._certificate is not None or self.trunk.authority is not None

    def context(self) -> ssl.SSLContext | None:
        """For connections to it; None: the house's. Raises `SettingsError`."""
        if self.own and self._context is None:
            self._context = self._trust(self.trunk.authority, self._certificate)
        return self._context

    def has_checked(self, flow: Flow) -> bool:
        """Whether we opened a connection by what this trunk alone is checked by, as it is now."""
        return flow.checked_by is not None and flow.checked_by is self._context

    def shown_by(self, certificate: PeerCertificate | None) -> bool:
        """Whether a peer's certificate is this trunk's: signed by its authority, and one that it shows.

        The name alone says nothing: the authority of another trunk may sign it too.
        """
        if certificate is None or certificate.ended or self._authorities.keys().isdisjoint(certificate.chain):
            return False
        prints = {one.removeprefix(FINGERPRINT) for one in self.trunk.shows if one.startswith(FINGERPRINT)}
        named = not certificate.domains.isdisjoint(self.trunk.shows)
        return named or certificate.fingerprint in prints

    def look(self) -> None:
        """Takes new files. Raises `SettingsError` once for what does not hold: the old ones stay."""
        if self._certificate is not None and self._certificate.changed():
            log.info("certificate.changed", trunk=self.trunk.name, sha256=self._certificate.fingerprint)
        if self._authority is not None and self._authority.changed():
            self._context = None
            self.asked = self._written()
            log.info("trunk.authority_changed", trunk=self.trunk.name)

    def ends(self) -> Mapping[str, datetime.datetime]:
        """When its certificate ends, and the last of its authorities; of those that it has.

        Raises `SettingsError`.
        """
        found = {}
        if self.trunk.certificate is not None:
            own = next(iter(authorities_in(self.trunk.certificate, self._named).values()))
            found["certificate"] = own.not_valid_after_utc
        if self._authorities:
            found["authority"] = max(one.not_valid_after_utc for one in self._authorities.values())
        return found

    @property
    def _named(self) -> str:
        return f"trunk {self.trunk.name}"

    @property
    def _authorities(self) -> Mapping[str, x509.Certificate]:
        """By fingerprint."""
        return {} if self._authority is None else self._authority.all

    def _written(self) -> str:
        """Once, since each handshake asks for it, and an operator may name a whole system's authorities."""
        pem = serialization.Encoding.PEM
        known = self._authorities.values() if self.trunk.shows else ()
        return "".join(one.public_bytes(pem).decode() for one in known)


def why_ended(tls: TrunkTls, now: datetime.datetime) -> str | None:
    """What of a trunk's has ended by then, for an operator; None: nothing has. Raises `SettingsError`."""
    for what, at in tls.ends().items():
        if at <= now:
            file = tls.trunk.certificate if what == "certificate" else tls.trunk.authority
            return f"trunk {tls.trunk.name}: its {what} ended on {at:%Y-%m-%d}: {file}; renew it"
    return None
