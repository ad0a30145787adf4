"""What the doctor says of TLS: whether the certificate and its key hold, and for how long."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from gateway.cli.doctor.diagnosis import Diagnosis, ok
from gateway.config.certificate import Certificate, asking
from gateway.config.ice_servers import IceServers
from gateway.config.own_certificate import ANEW_BEFORE_END, ends_soon
from gateway.config.paths import certificate_paths
from gateway.config.settings import Settings
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.errors import SettingsError


def certificate(settings: Settings) -> Iterator[Diagnosis]:
    """Reads the certificate as the gateway does, and the secret shared with TURN servers."""
    if settings.tls:
        yield _certificate(settings)
    if settings.ice_servers:
        try:
            IceServers(settings)
        except SettingsError as error:
            yield Diagnosis("ICE servers", "fail", str(error), "the gateway does not start like that")
        else:
            yield ok("ICE servers", ", ".join(settings.ice_servers))


def _certificate(settings: Settings) -> Diagnosis:
    chain, key = certificate_paths(settings)
    own = settings.tls_certificate is None
    if own and not chain.exists():
        return ok("certificate", f"{chain} will be made at the first start")
    try:
        shown = f"{chain}, SHA-256 {Certificate(chain, key).fingerprint}"
    except SettingsError as error:
        return Diagnosis("certificate", "fail", str(error), "the gateway does not start without it")
    if ends_soon(chain):
        fix = "restart: another is made" if own else "renew it; the gateway reads new files by itself"
        return Diagnosis("certificate", "warn", f"{shown}, is over within 30 days", fix)
    return ok("certificate", shown)


def trunk_certificates(trunk: Trunk, *, asks: bool) -> Iterator[Diagnosis]:
    """When a trunk's certificate and its authority end. `asks`: SIP over TLS is on."""
    name, now = f"trunk {trunk.name}", datetime.datetime.now(datetime.UTC)
    for what, at in TrunkTls(trunk, asking).ends().items():
        shown = f"{what} {'ended' if at <= now else 'ends'} on {at:%Y-%m-%d}"
        if at <= now:
            yield Diagnosis(name, "fail", shown, "renew it; the gateway does not start with it")
        elif at - now < ANEW_BEFORE_END:
            yield Diagnosis(name, "warn", shown, "renew it; the gateway reads new files by itself")
        else:
            yield ok(name, shown)
    if trunk.shows and not asks:
        fix = "open the gateway to the LAN, or give it a certificate"
        yield Diagnosis(name, "fail", "it is known by its certificate, and SIP over TLS is off", fix)
