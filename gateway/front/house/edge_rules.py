"""What this house's edge is told: ports and doors by the settings, whom it believes, whose sound it seals."""

from __future__ import annotations

from collections.abc import Callable

from gateway.config.paths import route_key_path
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.edge.dialogs.wire_tap import OnWire
from gateway.edge.doors.attestation import SignedCalls
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.doors.srtp_policy import SrtpPolicy
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.speech_notice import SpeechNotice
from gateway.edge.grammar.token import route_key
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.store.sip_users import SipUsers


def edge_rules(
    conf: Settings,
    runtime: Runtime,
    boot_token: str,
    certificate: CertificateWatch,
    users: SipUsers,
    *,
    mark_key: str,
    signed: SignedCalls | None,
    of_trunk: Callable[[str], SrtpRule | None],
    on_wire: OnWire | None,
) -> EdgeConfig:
    """`mark_key`: the id under which answers say that the voice is synthetic; `of_trunk`: whether a trunk's
    sound is encrypted; `on_wire` hears each message of a call. Raises `SettingsError`."""
    return EdgeConfig(
        host=conf.host,
        port=conf.sip_port,
        boot_token=boot_token,
        route_key=route_key(route_key_path(conf)),
        public_address=conf.public_address,
        tls_port=conf.sip_tls,
        tls=certificate.for_telephones(),
        tls_asking=certificate.for_telephones,
        client_authorities=certificate.client_authorities(),
        trust=certificate.for_servers,
        web_ports={"ws": conf.http_port, "wss": conf.https or conf.http_port},
        allow=conf.sip_allow,
        deny=conf.sip_deny,
        trusted_proxies=conf.trusted_proxies,
        signed=signed,
        invites_per_s=conf.invites_per_s,
        emergency=conf.emergency_numbers,
        loopback_port_file=runtime.edge_port,
        digest=conf.sip_digest,
        ha1=users.ha1 if conf.digest else None,
        may_omit_qop=users.is_legacy,
        phones=users.ha1 if conf.registered_most_s else None,
        least_registered_s=min(conf.registered_least_s, conf.registered_most_s),
        most_registered_s=conf.registered_most_s,
        qualify_s=conf.qualify_s,
        notice=SpeechNotice(mark_key, conf.http_port, conf.public_url),
        srtp=SrtpPolicy(conf.sip_srtp, conf.sip_srtp_plain, of_user=users.srtp, of_trunk=of_trunk),
        on_wire=on_wire,
    )
