"""All settings: one typed object, each field with unit, default and range.

Sources, strongest first: `VOICEGATE_*` variables, then the TOML file named by `VOICEGATE_CONFIG` (default:
`voicegate.toml` in the data directory). An unknown key is an error in both.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from consent.data_dir import default_data_dir
from gateway.config.emergency import EMERGENCY
from gateway.config.toml_mistake import toml_mistake
from gateway.errors import SettingsError
from model.cascade.chat_settings import leaves_machine

PREFIX = "VOICEGATE_"
HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
ICE_SERVER = re.compile(
    r"stuns?:(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?"
    r"|turns?:(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(\?transport=(udp|tcp))?"
)
"""RFC 7064, RFC 7065."""
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")
SERVER_URL = re.compile(
    r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
    r"|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
STIR_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(:[1-9][0-9]{0,4})?")
MAIL_RELAY = r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?$"
MAIL_ADDRESS = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+$"
DETECTOR_PORT = 8091
SIP_TLS_PORT = 5061
HTTPS_PORT = 8443
LEAST_SIP_LINES = 2
GONE = {
    key: "lines of four calls are no more. VOICEGATE_SIP_LINES is how many processes have telephones' calls; "
    "VOICEGATE_NARROW_CALLS and VOICEGATE_WIDE_CALLS are how many each of them takes at 8 and at 16 kHz"
    for key in ("narrow_lines", "wide_lines")
}
"""Settings of earlier versions, and what does their work now."""
NOT_SETTINGS = frozenset({"CONFIG", "TEST_STRICT", "GOLDENS", "BOOT_TOKEN", "EARS", "LOG_EAR"})
"""Variables with our prefix that are read elsewhere, each for one purpose."""


class Settings(BaseModel):
    """What an operator may set. Times are seconds, sizes what the name says."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    host: str = Field(
        "127.0.0.1",
        description="address that SIP and HTTP bind; 0.0.0.0 opens the gateway to the LAN, :: over IPv6 too",
    )
    public_address: str | None = Field(
        None, description="address that peers outside reach us at, when NAT hides it"
    )
    sip_port: int = Field(5060, ge=1, le=65535, description="SIP over UDP and TCP")
    sip_tls_port: Annotated[int, Field(ge=0, le=65535)] | Literal["auto"] = Field(
        "auto", description="SIP over TLS; 0: none; auto: 5061 where there is a certificate (below)"
    )
    http_port: int = Field(8080, ge=1, le=65535, description="page, API, metrics")
    https_port: Annotated[int, Field(ge=0, le=65535)] | Literal["auto"] = Field(
        "auto",
        description="the same over https; 0: none; auto: 8443 where there is a certificate (below)",
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file with the gateway's certificate and those between it and its authority; unset: "
        "one that the gateway signs itself, unless it is bound to loopback. Read anew when it changes",
    )
    tls_key: Path | None = Field(
        None, description="PEM file with its key, without a passphrase; others must not be able to read it"
    )
    tls_clients: Literal["off", "asked", "required"] = Field(
        "off",
        description="whether telephones and trunks over TLS show a certificate, if they have one or all",
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file with the authorities that sign clients' certificates"
    )
    tls_trust: Path | None = Field(
        None,
        description="PEM file with the authorities of servers that SIP connects to; unset: this machine's",
    )
    detector_port: Annotated[int, Field(ge=0, le=65535)] | Literal["auto"] = Field(
        "auto",
        description="page where anyone may ask whether a recording is ours; 0: none; auto: 8091 unless bound "
        "to loopback",
    )
    http_names: tuple[str, ...] = Field(
        (), description="host names the page may be asked for by, beside addresses and this machine's own"
    )
    ice_servers: tuple[str, ...] = Field(
        (),
        description="stun:, turn: and turns: URIs that browsers are told of, such as turn:turn.example:3478",
    )
    turn_secret_file: Path | None = Field(
        None, description="file with the secret that the TURN servers share (coturn: static-auth-secret)"
    )
    web_origins: tuple[str, ...] = Field(
        (),
        description="origins (https://shop.example) whose pages may speak SIP over WebSocket, beside our own",
    )
    embed_origins: tuple[str, ...] = Field(
        (), description="origins whose pages may have a call button, with a token of 5 minutes; empty: none"
    )
    embed_per_origin: int = Field(20, ge=1, le=100_000, description="calls a minute from one such origin")
    embed_per_address: int = Field(3, ge=1, le=1000, description="calls a minute from one address there")
    public_url: Annotated[str, Field(pattern=r"^https?://[!-;=?-~]{1,190}$")] | None = Field(
        None,
        description="URL at which others reach the page, for what calls say of themselves; unset: by address",
    )
    data_dir: Path = Field(default_factory=default_data_dir, description="everything the gateway keeps")
    redis_url: str | None = Field(None, description="redis:// or unix://; unset: an embedded Valkey")
    sql_url: str | None = Field(None, description="SQLAlchemy URL; unset: SQLite in the data directory")
    ledger_witness: str | None = Field(
        None,
        description="https:// URL that keeps the consent ledger's newest head outside this data directory "
        "(http:// on this machine); unset: only a Redis of your own does",
    )
    consent_sql_url: str | None = Field(
        None, description="the consent office's database; unset: the same as sql_url"
    )
    office_socket: Path | None = Field(
        None,
        description="socket of a consent office that another service runs; unset: the gateway runs its own",
    )
    office_for: str | None = Field(
        None, description="user that the gateway runs as, for `voicegate office`; unset: this user"
    )
    dialplans: Path | None = Field(
        None, description="folder of *.toml; unset: <data_dir>/dialplans, else the shipped ones"
    )

    models: Path | None = Field(
        None, description="directory of model files (`voicegate models`); unset: <data_dir>/models"
    )

    engine: Literal["embedded", "cascade", "chroma"] = Field("embedded", description="what speaks")
    chroma: str | None = Field(None, description="Chroma checkpoint: a directory or a hub id")
    chroma_device: str = Field(
        "auto", description="where Chroma runs: cpu, cuda:0; auto: a GPU if there is one"
    )
    chroma_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Chroma's precision; auto: bfloat16 on a GPU, float32 elsewhere"
    )
    chroma_weights: Literal["full", "int8", "fp8"] = Field(
        "full", description="int8, fp8: Chroma's linear layers in a byte a weight"
    )
    chroma_kv: Literal["full", "fp8"] = Field(
        "full", description="fp8: what Chroma remembers of calls in a byte a number, for more calls"
    )
    chroma_context: int = Field(
        4096,
        ge=256,
        le=32768,
        description="positions that Chroma remembers of a call; a second of speech takes 25",
    )
    chroma_promised: int = Field(
        1536,
        ge=256,
        le=32768,
        description="those of them that each call is sure to have; it has more while the others leave it",
    )
    chroma_reply_s: float = Field(60.0, gt=0, le=160, description="Chroma's longest answer")
    chroma_lead_s: float = Field(
        0.5, ge=0.24, le=10, description="how far Chroma makes an answer ahead of its playout"
    )
    llm_url: str | None = Field(
        None,
        description="the cascade's chat server (OpenAI-compatible): https://host/v1; http:// on this machine",
    )
    llm_model: str | None = Field(None, description="which of the chat server's models answers")
    llm_key_file: Path | None = Field(None, description="file with the chat server's key, and nothing else")
    llm_tokens: int = Field(300, ge=16, le=4096, description="the cascade's longest answer, in tokens")
    llm_context: int = Field(
        4096,
        ge=512,
        le=1_000_000,
        description="tokens that the chat server's model takes, answer included",
    )
    llm_filler_s: float = Field(
        1.0, ge=0.1, le=10, description="a caller who waits so long for the chat server hears a filler"
    )
    llm_give_up_s: float = Field(
        7.0, ge=1, le=60, description="a caller who waits so long for it hears a farewell, and the call ends"
    )
    turns_by_words: Literal["auto", "on", "off"] = Field(
        "auto",
        description="callers' words decide when their turns end for an engine that does not hear them early "
        "(Chroma); auto: where this house has ears anyway; on: it has them for that; off: the clock decides",
    )
    engine_url: tuple[str, ...] = Field(
        (),
        description="engines that run elsewhere: ws:// or wss:// of each, or a Serve cluster's http(s)://; "
        "unset: the gateway runs its own",
    )
    engine_token: SecretStr | None = Field(
        None, description="secret that the gateway and engines elsewhere share; at least 16 characters"
    )
    engine_plain: bool = Field(
        False, description="the network to engines elsewhere is private: ws:// and http:// will do there"
    )
    engine_calls: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        64,
        description="conversations the engine takes at once; auto: as many as Chroma measures that it can",
    )

    halls: int = Field(1, ge=1, le=64, description="halls; one per core that calls may use")
    sip_lines: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        "auto",
        description="processes that have telephones' calls; one that dies takes its share with it. auto: one "
        "for each hall, and two at least",
    )
    narrow_calls: int = Field(
        8, ge=0, le=255, description="telephones' calls that each of these takes at 8 kHz (PCMU, PCMA)"
    )
    wide_calls: int = Field(
        4, ge=0, le=100, description="calls that each takes at 16 kHz beside those (G.722, PCMU, PCMA)"
    )
    web_lines: int = Field(1, ge=0, le=32, description="aiortc lines, 8 calls each")
    rtp_port: int = Field(0, ge=0, le=65000, description="first RTP port; 0: a random block")

    sip_auth: Literal["auto", "on", "off"] = Field(
        "auto", description="digest; auto: on unless bound to loopback"
    )
    sip_digest: Literal["md5", "sha-256", "both"] = Field(
        "md5",
        description="hash that telephones log in with; many know MD5 only, or give up when offered two",
    )
    sip_srtp: Literal["required", "optional", "off"] = Field(
        "optional",
        description="whether SIP callers' sound is encrypted (SRTP, keys by SDES): always, as offered, never",
    )
    sip_srtp_plain: bool = Field(
        False, description="the network to SIP callers is private: keys for SRTP count over UDP and TCP too"
    )
    registered_least_s: int = Field(
        60, ge=1, le=3600, description="the shortest registration of a telephone; who asks for less hears 423"
    )
    registered_most_s: int = Field(
        3600, ge=0, le=86_400, description="the longest; 0: no telephone may register"
    )
    qualify_s: float = Field(
        50.0,
        ge=0,
        le=3600,
        description="how often a registered telephone that keeps no flow alive is asked whether it is there, "
        "by OPTIONS, which keeps its NAT open too; 0: never",
    )
    sip_allow: tuple[str, ...] = Field((), description="networks that may call; empty: all")
    sip_deny: tuple[str, ...] = Field((), description="networks that may not call")
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="addresses or networks whose Via, digest and (at the detector) X-Forwarded-For hold",
    )
    stir_trust: Path | None = Field(
        None,
        description="PEM file with the authorities of telephone companies whose signatures of calls hold "
        "(STIR/SHAKEN); unset: no call has an attestation",
    )
    stir_hosts: tuple[str, ...] = Field(
        (), description="hosts (HOST or HOST:PORT) from which their certificates are fetched, over https"
    )
    emergency_numbers: tuple[Annotated[str, Field(pattern=r"^[0-9*#]{2,15}$")], ...] = Field(
        EMERGENCY,
        description="numbers for which help is called: such a call is refused (380), or a route with "
        "emergency = true says that nobody hears it",
    )
    invites_per_s: float = Field(20.0, gt=0, le=10_000, description="per source address")

    rtp_timeout_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="a SIP caller who sends neither RTP nor RTCP for so long is gone, and the call ends; "
        "holds and one-way calls excepted; 0: never",
    )
    admit_by_time: bool = Field(
        True, description="refuse (503) a call for which there is no time; off: free lines alone decide"
    )
    most_pass_s: float = Field(
        0.016, ge=0, le=1, description="how long a hall's slowest passes of 20 ms (1 in 100) may take; 0: any"
    )
    most_late_s: float = Field(
        0.02, ge=0, le=1, description="how late a hall's latest passes (1 in 100) may be; 0: any"
    )
    most_late_turns: float = Field(
        0.1, ge=0, le=1, description="which share of a hall's passes may be 10 ms late or long; 0: any"
    )
    most_hearing_s: float = Field(
        0.8, ge=0, le=60, description="how long callers' words may wait for a recogniser; 0: any"
    )
    most_first_sound_s: float = Field(
        1.5, ge=0, le=60, description="how long the engine's slow replies (1 in 10) may take to begin; 0: any"
    )
    max_call_s: float = Field(1800.0, ge=5, le=86_400, description="a call's longest duration")
    session_ttl_s: float = Field(86_400.0, ge=60, description="how long Redis remembers an ended call")
    recordings_s: float = Field(
        2_592_000.0, ge=60, description="how long recordings are kept (30 days); then they are deleted"
    )
    cdr: Literal["off", "json", "csv", "both"] = Field(
        "both", description="form of the record that is written of each call, below <data_dir>/cdr"
    )
    cdr_mb: int = Field(16, ge=1, le=1024, description="megabytes after which a new file of them begins")
    cdr_s: float = Field(
        7_776_000.0, ge=60, description="how long such a file is kept (90 days); then it is deleted"
    )
    hep: str | None = Field(
        None, description="HOST:PORT of a HEP3 collector (Homer) that is told calls' SIP messages, by UDP"
    )
    otlp_url: str | None = Field(
        None,
        description="OpenTelemetry collector (OTLP over HTTP) that is told traces and metrics, for example "
        "http://localhost:4318; https unless it is here",
    )
    otlp_headers_file: Path | None = Field(
        None, description="file with headers that it is shown, such as Authorization: Bearer …, one in a line"
    )
    otlp_metrics_s: float = Field(
        60.0, ge=0, le=3600, description="how often it is told the metrics; 0: it is told traces alone"
    )
    oidc_issuer: str | None = Field(
        None,
        description="OpenID provider by which people log in at the console: its issuer, such as "
        "https://login.example.com/realms/house",
    )
    oidc_client_id: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = Field(
        None, description="what the provider calls this gateway"
    )
    oidc_secret_file: Path | None = Field(
        None, description="file with the secret that goes with it; unset: the provider wants none (PKCE)"
    )
    oidc_scope: Annotated[str, Field(pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+){0,20}$")] = Field(
        "openid", description="what the provider is asked for; openid is always"
    )
    oidc_claim: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] = Field(
        "groups", description="claim of the ID token that says who may what; a dot leads into a table"
    )
    oidc_roles: tuple[str, ...] = Field(
        (), description="VALUE=ROLE for values of that claim; the first that fits holds; empty: nobody"
    )
    mail_relay: Annotated[str, Field(pattern=MAIL_RELAY)] | None = Field(
        None,
        description="HOST[:PORT] that takes mail (SMTP) for notify; STARTTLS unless it is here",
    )
    mail_from: Annotated[str, Field(pattern=MAIL_ADDRESS)] | None = Field(
        None, description="who such mail is from"
    )
    grant_s: float = Field(
        60.0, ge=5, le=600, description="life of a voice grant; renewed while the call lasts"
    )
    drain_s: float = Field(10.0, ge=0, le=3600, description="how long running calls may go on after Ctrl-C")
    lead_s: float = Field(
        1.0, ge=0.1, le=10, description="how far the engine may run ahead of what was played"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug to error")

    @field_validator("hep")
    @classmethod
    def _hep(cls, written: str | None) -> str | None:
        found = None if written is None else HOST_PORT.fullmatch(written)
        if written is not None and (found is None or not 0 < int(found[2]) < 65_536):
            raise ValueError("it must be HOST:PORT, such as homer.example:9060 or [::1]:9060")
        return written

    @field_validator("otlp_url")
    @classmethod
    def _collector(cls, written: str | None) -> str | None:
        if written is not None and SERVER_URL.fullmatch(written) is None:
            raise ValueError("it must be https://HOST[:PORT][/PATH], or http:// and this machine")
        return written

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, written: str | None) -> str | None:
        if written is not None and SERVER_URL.fullmatch(written) is None:
            raise ValueError("it must be https://HOST[:PORT][/PATH], or http:// and this machine")
        return written

    @field_validator("ice_servers")
    @classmethod
    def _ice_servers(cls, written: tuple[str, ...]) -> tuple[str, ...]:
        for one in written:
            if ICE_SERVER.fullmatch(one) is None:
                raise ValueError(
                    f"{one!r} is not a STUN or TURN URI, such as turn:turn.example:3478?transport=tcp"
                )
        return written

    @field_validator("web_origins", "embed_origins")
    @classmethod
    def _origins(cls, written: tuple[str, ...]) -> tuple[str, ...]:
        for one in written:
            if ORIGIN.fullmatch(one) is None:
                raise ValueError(f"{one!r} is not an origin, such as https://shop.example: no path, no *")
        return tuple(one.lower() for one in written)

    @field_validator("sip_allow", "sip_deny", "trusted_proxies")
    @classmethod
    def _networks(cls, written: tuple[str, ...]) -> tuple[str, ...]:
        for one in written:
            try:
                ip_network(one, strict=False)
            except ValueError:
                raise ValueError(f"{one!r} is not an address or a network, such as 10.0.0.0/8") from None
        return written

    @field_validator("stir_hosts")
    @classmethod
    def _certificate_hosts(cls, written: tuple[str, ...]) -> tuple[str, ...]:
        for one in written:
            if STIR_HOST.fullmatch(one) is None:
                raise ValueError(f"{one!r} is not a host, such as certificates.example or one.example:8443")
        return tuple(one.lower().removesuffix(":443") for one in written)

    @model_validator(mode="after")
    def _whole_signatures(self) -> Self:
        if (self.stir_trust is None) != (not self.stir_hosts):
            raise ValueError("VOICEGATE_STIR_TRUST and VOICEGATE_STIR_HOSTS go together: set both, or none")
        return self

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError(
                "VOICEGATE_OIDC_ISSUER and VOICEGATE_OIDC_CLIENT_ID go together: set both, or none"
            )
        if self.oidc_issuer is not None and SERVER_URL.fullmatch(self.console_url) is None:
            raise ValueError(
                "VOICEGATE_OIDC_ISSUER needs VOICEGATE_PUBLIC_URL: where people come back to, by https"
            )
        return self

    @model_validator(mode="after")
    def _whole_certificate(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("VOICEGATE_TLS_CERTIFICATE and VOICEGATE_TLS_KEY go together: set both, or none")
        if self.tls_clients != "off" and self.tls_client_ca is None:
            raise ValueError("VOICEGATE_TLS_CLIENTS needs VOICEGATE_TLS_CLIENT_CA: who signs them")
        return self

    @field_validator("engine_calls")
    @classmethod
    def _calls(cls, given: int | str, info: ValidationInfo) -> int | str:
        if given == "auto" and info.data.get("engine") != "chroma":
            raise ValueError("only Chroma measures itself (VOICEGATE_ENGINE=chroma)")
        return given

    @cached_property
    def sql(self) -> str:
        """The database in force: `sql_url`, or a SQLite file in the data directory."""
        return self.sql_url or f"sqlite:///{self.data_dir / 'voicegate.db'}"

    @cached_property
    def consent_sql(self) -> str:
        """The consent office's database in force."""
        return self.consent_sql_url or self.sql

    @cached_property
    def sip_processes(self) -> int:
        """How many processes have telephones' calls."""
        if not self.narrow_calls + self.wide_calls:
            return 0
        return max(LEAST_SIP_LINES, self.halls) if self.sip_lines == "auto" else self.sip_lines

    @cached_property
    def local_only(self) -> bool:
        """True while nobody but this machine can reach us."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @cached_property
    def tls(self) -> bool:
        """Whether the gateway has a certificate: one that is named, or its own where others reach it."""
        return self.tls_certificate is not None or not self.local_only

    @cached_property
    def sip_tls(self) -> int:
        """The port of SIP over TLS; 0 where there is none."""
        if self.sip_tls_port == "auto":
            return SIP_TLS_PORT if self.tls else 0
        return self.sip_tls_port if self.tls else 0

    @cached_property
    def https(self) -> int:
        """The page's port over https; 0 where there is none."""
        if self.https_port == "auto":
            return HTTPS_PORT if self.tls else 0
        return self.https_port if self.tls else 0

    @property
    def console_url(self) -> str:
        """Where people have the console, without a slash at its end; empty where nobody has said."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return f"http://localhost:{self.http_port}" if self.local_only else ""

    @cached_property
    def detector(self) -> int:
        """The port of the public detector; 0 where there is none."""
        if self.detector_port != "auto":
            return self.detector_port
        return 0 if self.local_only else DETECTOR_PORT

    @cached_property
    def stock_only(self) -> bool:
        """Whether the engine hears by the house's ears and speaks by its mouth, which has the stock voice."""
        return self.engine in ("embedded", "cascade")

    @cached_property
    def time_bounds(self) -> dict[str, float]:
        """The bounds of what a hall measures (`gateway.ipc.hall_messages.HallLoad`), by measure."""
        names = ("pass_s", "late_s", "late_turns", "hearing_s", "first_sound_s") if self.admit_by_time else ()
        return {name: bound for name in names if (bound := getattr(self, f"most_{name}"))}

    @cached_property
    def llm_variables(self) -> dict[str, str]:
        """The chat server's settings as `model.cascade.chat_settings` reads them."""
        names = [name for name in type(self).model_fields if name.startswith("llm_")]
        given = {name: getattr(self, name) for name in names}
        return {PREFIX + name.upper(): str(value) for name, value in given.items() if value is not None}

    @cached_property
    def words_leave(self) -> bool:
        """Whether what callers say is sent off this machine as text.

        A cascade that runs elsewhere, of whose chat server nothing is known here, is taken for one that does.
        """
        where = bool(self.engine_url) if self.llm_url is None else leaves_machine(self.llm_url)
        return self.engine == "cascade" and where

    @cached_property
    def mails(self) -> bool:
        """Whether mail can be sent."""
        return self.mail_relay is not None and self.mail_from is not None

    @cached_property
    def digest(self) -> bool:
        """Whether callers must log in."""
        return self.sip_auth == "on" or (self.sip_auth == "auto" and not self.local_only)


def load(environ: dict[str, str] | None = None) -> Settings:
    """The settings in force. Raises `SettingsError` naming the variable or the file's key."""
    env = dict(os.environ) if environ is None else environ
    given: dict[str, Any] = {}
    for name, value in env.items():
        if name.startswith(PREFIX) and name[len(PREFIX) :] not in NOT_SETTINGS:
            key = name[len(PREFIX) :].lower()
            if key not in Settings.model_fields:
                raise SettingsError(f"{name} is not a setting; {_meant(key, PREFIX)}")
            if value == "":
                continue
            plural = "tuple" in str(Settings.model_fields[key].annotation)
            given[key] = tuple(v.strip() for v in value.split(",") if v.strip()) if plural else value
    data_dir = Path(given.get("data_dir") or default_data_dir()).expanduser()
    named = env.get(PREFIX + "CONFIG")
    path = Path(named).expanduser() if named else data_dir / "voicegate.toml"
    merged = {**_from_file(path, must_exist=bool(named)), **given}
    try:
        return Settings(
            **{**merged, "data_dir": Path(merged.get("data_dir", data_dir)).expanduser().absolute()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(first["msg"].removeprefix("Value error, ")) from None
        key = str(first["loc"][0])
        source = PREFIX + key.upper() if key in given else f"{key} in {path}"
        raise SettingsError(
            f"{source}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})"
        ) from None


def _from_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise SettingsError(f"VOICEGATE_CONFIG names {path}, which does not exist") from None
        return {}
    except tomllib.TOMLDecodeError as error:
        line, what = toml_mistake(error, text)
        raise SettingsError(f"{path}:{line}: not TOML: {what}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for key in table:
        if key not in Settings.model_fields:
            raise SettingsError(f"{path}: {key!r} is not a setting; {_meant(key)}")
    return table


def _meant(key: str, prefix: str = "") -> str:
    """What somebody may have meant who wrote `key`."""
    if key.lower() in GONE:
        return GONE[key.lower()]
    bare = key.lower().replace("-", "_").removeprefix(PREFIX.lower())
    near = difflib.get_close_matches(bare, Settings.model_fields, n=1)
    name = prefix + (near[0].upper() if prefix else near[0]) if near else ""
    return f"did you mean {name}? " * bool(near) + "`voicegate settings` lists them"
