"""Looks before anything is started, so that a wrong setting is one sentence and not a crash.

What is cheap stands here. What needs a database or a key file is tried by `gateway.run.prepare`, in a process
that is gone before the house is there.
"""

from __future__ import annotations

import datetime
import errno
import ipaddress
import json
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from consent.archive.database import database_url
from consent.models.model_files import locked_model
from gateway.config import gpu, packages
from gateway.config.authorities import authorities_in
from gateway.config.certificate import asking
from gateway.config.paths import model_files_dir, trunks_path
from gateway.config.ports import all_ports
from gateway.config.settings import Settings
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.edge.trunks.trunk_tls import TrunkTls, why_ended
from gateway.errors import SettingsError, StartError
from gateway.run.sip_lines import ports_each
from model.address import is_safe
from model.cascade.chat_settings import ChatSettings
from model.errors import EngineError

REDIS_URLS: Final = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH"
DATABASE: Final = re.compile(r"/?|/[0-9]{1,6}/?")
ROOM: Final = 256 * 1024
"""Bytes that a data directory must have room for: a start writes about as many."""
HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
ENGLISH: Final = "whisper-tiny-en"
CHECKPOINT_FILES: Final = ("config.json", "*.safetensors")
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
"""A host's name (RFC 1123 §2.1)."""


def check(settings: Settings) -> None:
    """Raises `StartError` for the first thing that the gateway cannot start with."""
    check_addresses(settings)
    check_ports(settings)
    check_lines(settings)
    check_rtp(settings)
    check_trunks(settings)
    if settings.stir_trust is not None:
        authorities_in(settings.stir_trust, "VOICEGATE_STIR_TRUST")
    check_redis_url(settings)
    check_sql_url(settings)
    check_engines(settings)
    check_packages(settings)


def check_trunks(settings: Settings) -> None:
    """Raises `SettingsError` with the line of trunks' file that cannot be meant, and for what has ended."""
    now = datetime.datetime.now(datetime.UTC)
    for trunk in read_trunks(trunks_path(settings)):
        if (why := why_ended(TrunkTls(trunk, asking), now)) is not None:
            raise SettingsError(why)
        if trunk.shows and not settings.sip_tls:
            raise SettingsError(
                f"trunk {trunk.name} is known by its certificate, and SIP over TLS is off; open the gateway "
                "to the LAN, or name VOICEGATE_TLS_CERTIFICATE"
            )


def make_data_dir(settings: Settings) -> None:
    """Makes the data directory, for its owner only. Raises `StartError` when it cannot be written."""
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(ROOM))
            probe.flush()  # all of it, or an error
            os.fsync(probe.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there" if full else "give it to this user"
        raise StartError(
            f"VOICEGATE_DATA_DIR: {path} cannot be written ({error.strerror}); "
            f"{remedy} or name another directory"
        ) from None


def check_addresses(settings: Settings) -> None:
    """Raises `StartError` for a host or public address that is neither an address nor a name."""
    if settings.host != "localhost" and not _is_address(settings.host):
        raise StartError(
            f"VOICEGATE_HOST: {settings.host!r} is not an IP address; use 127.0.0.1, 0.0.0.0 for IPv4, "
            ":: for all, or one that `ip address` shows"
        )
    public = settings.public_address
    if public is not None and not _is_address(public) and _NAME.fullmatch(public) is None:
        raise StartError(
            f"VOICEGATE_PUBLIC_ADDRESS: {public!r} is not an IP address, nor a host's name; "
            "it is what peers outside reach this machine by, without a port"
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_ports(settings: Settings) -> None:
    """Raises `StartError` for a port that somebody else holds."""
    for port in all_ports(settings):
        try:
            port.bind(settings.host).close()
        except OSError as error:
            raise StartError(port.refusal(settings.host, error)) from None


def check_lines(settings: Settings) -> None:
    """Raises `StartError` for halls that no telephone could reach."""
    if 0 < settings.sip_processes < settings.halls:
        raise StartError(
            f"VOICEGATE_SIP_LINES: {settings.sip_processes} leaves some of {settings.halls} halls without a "
            f"process for telephones; set it to {settings.halls} at least, or to auto"
        )


def check_rtp(settings: Settings) -> None:
    """Raises `StartError` when `rtp_port` leaves a process without ports for all its calls."""
    lines, each, first = settings.sip_processes, ports_each(settings), settings.rtp_port
    if not first or not lines:
        return
    last = first + lines * each - 1
    if last > 65535:
        raise StartError(
            f"VOICEGATE_RTP_PORT: {lines} SIP lines of {each} ports do not fit above {first}; "
            f"set it to {65536 - lines * each} at most, or take fewer calls"
        )
    if first <= settings.sip_port <= last:
        raise StartError(
            f"VOICEGATE_SIP_PORT: {settings.sip_port} lies among the RTP ports {first} to {last}; "
            "move it, or VOICEGATE_RTP_PORT"
        )
    for at in range(first, last, each):
        free = sum(_is_free(settings.host, port) for port in range(at, at + each))
        if free < each // 2:  # RTP and RTCP of each call; as many rest
            raise StartError(
                f"VOICEGATE_RTP_PORT: of the UDP ports {at} to {at + each - 1} other programs hold all "
                f"but {free}; a SIP line needs {each // 2}. Choose another range"
            )


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check_redis_url(settings: Settings) -> None:
    """Raises `StartError` for a URL that cannot be Redis's. It may hold a password, and is not quoted."""
    if settings.redis_url is None:
        return
    try:
        url = urlsplit(settings.redis_url)
        well = url.scheme in ("redis", "rediss") and url.hostname and url.port != 0
        well = well and DATABASE.fullmatch(url.path) is not None
    except ValueError as error:
        raise StartError(f"VOICEGATE_REDIS_URL: {error}; it is {REDIS_URLS}") from None
    if url.scheme in ("redis", "rediss") and not well:
        raise StartError(
            f"VOICEGATE_REDIS_URL lacks a host, or its port or database is not a number; it is {REDIS_URLS}"
        )
    if not well and not (url.scheme == "unix" and url.path):
        raise StartError(f"VOICEGATE_REDIS_URL begins with {url.scheme or 'no scheme'}; it is {REDIS_URLS}")


def check_sql_url(settings: Settings) -> None:
    """Raises `StartError` for a URL that cannot be the database's. Nobody is asked there."""
    try:
        database_url(settings.sql)
    except ValueError as error:
        raise StartError(str(error)) from None


def check_engines(settings: Settings) -> None:
    """Raises `StartError` for engines that cannot be used, or not safely."""
    if not settings.engine_url:
        if settings.engine == "chroma":
            check_checkpoint(settings.chroma)
            check_gpu(settings.chroma_device)
        check_chat_server(settings)
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


def check_chat_server(settings: Settings) -> None:
    """Raises `StartError` for a cascade whose chat server cannot be asked, or not safely."""
    if settings.engine == "cascade":
        chat_settings(settings)


def check_weights(settings: Settings) -> None:
    """Raises `StartError` for a cascade whose ears would hear nobody: they know no phrases to look for."""
    model = locked_model(ENGLISH)
    absent = [path for path in model.paths(model_files_dir(settings)) if not path.exists()]
    if settings.engine == "cascade" and not settings.engine_url and absent:
        raise StartError(
            f"VOICEGATE_ENGINE=cascade needs the model {ENGLISH}, to hear what callers say; fetch it with: "
            f"voicegate models get {ENGLISH}"
        )


def chat_settings(settings: Settings) -> ChatSettings:
    """What the cascade asks its chat server with. Raises `StartError` naming what cannot be used of it."""
    try:
        return ChatSettings.from_environ(settings.llm_variables)
    except EngineError as error:
        raise StartError(str(error)) from None


def check_checkpoint(named: str | None) -> None:
    """Raises `StartError` when `named` cannot be a Chroma checkpoint. What the hub has is not looked at."""
    if named is None:
        raise StartError(
            "VOICEGATE_ENGINE=chroma needs VOICEGATE_CHROMA: a directory, or FlashLabs/Chroma-4B"
        )
    folder = Path(named).expanduser()
    if folder.is_dir():
        missing = [name for name in CHECKPOINT_FILES if not any(folder.glob(name))]
        if missing:
            raise StartError(f"VOICEGATE_CHROMA: {folder} lacks {', '.join(missing)}; fetch it again")
        try:
            json.loads((folder / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(
                f"VOICEGATE_CHROMA: {folder / 'config.json'} cannot be read: {error}; fetch it again"
            ) from None
    elif named.startswith(("/", ".", "~")) or HUB_ID.fullmatch(named) is None:
        raise StartError(
            f"VOICEGATE_CHROMA: {named} is neither a directory nor a hub id such as FlashLabs/Chroma-4B"
        )


def check_gpu(device: str) -> None:
    """Raises `StartError` for what this machine lacks for Chroma on its GPU, where it is to run on one."""
    for lack in gpu.lacking() if gpu.wanted(device) else ():
        raise StartError(f"VOICEGATE_ENGINE=chroma on a GPU: {lack}")


def check_packages(settings: Settings) -> None:
    """Raises `StartError` for a package that is missing, and names the process that needs it."""
    wanted = {
        "embedded Valkey": settings.redis_url is None,
        f"{settings.engine} engine": not settings.engine_url,
        "hall": True,
        "front": True,
        "ears process": settings.stock_only and not settings.engine_url,
        "SIP line": settings.sip_processes > 0,
        "web line": settings.web_lines > 0,
        "detector": settings.detector > 0,
    }
    for part in (part for part, here in wanted.items() if here):
        if (absent := packages.absent(packages.NEEDED[part])) is not None:
            raise StartError(packages.missing(absent, f"the {part}"))
