"""`python -m gateway.run.prepare`: what is tried and made once before the house starts, in its own process.

The supervisor lives as long as the house and needs neither SQL nor keys; this process is gone in a second.
"""

from __future__ import annotations

from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from consent.checks.checklist import Checks
from consent.errors import ConsentError
from consent.grants.redis_watch import redis_place
from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from consent.silero.network import read_network
from gateway.config.certificate import Certificate
from gateway.config.failure import text_of
from gateway.config.ice_servers import IceServers
from gateway.config.own_certificate import own_certificate
from gateway.config.paths import (
    certificate_paths,
    consent_dir,
    grant_keys_path,
    mark_keys_path,
    model_files_dir,
    office_socket,
    route_key_path,
)
from gateway.config.settings import Settings, load
from gateway.dialplan.house_plan import read_house_plan
from gateway.edge.grammar.token import route_key
from gateway.errors import StartError
from gateway.run import preflight
from gateway.run.trial_mark import check_marks
from gateway.store.registry import Registry
from gateway.store.sip_users import SipUsers, console_token
from model import json_log
from watermark.envelope import chip_network
from watermark.errors import WatermarkError
from watermark.keys import KeyRing

REDIS_WITHIN_S: Final = 3.0
OFFICE_WITHIN_S: Final = 60.0
"""The house's own office begins beside this process; the supervisor says when it cannot."""


def prepare(settings: Settings) -> None:
    """Makes the keys and tables that every part reads.

    Raises `VoicegateError` for what cannot be read or written.
    """
    preflight.check_sql_url(settings)
    registry = Registry.open(settings.sql)
    keys = mark_keys_path(settings)
    try:
        read_network()  # halls listen with it,
        chip_network.network()  # and look with it for the mark in what they sent
        # a mistake in checks.toml is said before anything starts
        Checks.load(consent_dir(settings), keys, model_files_dir(settings))
        KeyRing.load(keys) if keys.exists() else KeyRing.create(keys)
    except (ConsentError, WatermarkError) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        place = error.filename or settings.data_dir
        raise StartError(f"VOICEGATE_DATA_DIR: {place}: {error.strerror}") from None
    route_key(route_key_path(settings))
    IceServers(settings)
    if settings.tls:
        certificate = certificate_paths(settings)
        if settings.tls_certificate is None:
            own_certificate(settings, *certificate)
        Certificate(*certificate)
    if settings.digest:
        SipUsers(settings.data_dir).first()
    console_token(settings.data_dir)
    registry.close()
    check_marks(read_house_plan(settings, _asked_office(settings)))


def _asked_office(settings: Settings) -> frozenset[str]:
    """The voices' names, once the office is there; its public keys lie where halls and engines read them."""
    within_s = OFFICE_WITHIN_S if settings.office_socket is None else 2.0
    client = OfficeClient(office_socket(settings), back_s=within_s)
    office = FrontOffice(client, grant_keys_path(settings))
    try:
        names = office.names()
        office.publish_keys()
        return names
    except ConsentError as error:
        raise StartError(str(error)) from None
    finally:
        client.close()


def reach_redis(settings: Settings) -> None:
    """Raises `StartError` when the operator's own Redis does not answer now."""
    if settings.redis_url is None:
        return
    try:
        client = Redis.from_url(
            settings.redis_url,
            socket_timeout=REDIS_WITHIN_S,
            socket_connect_timeout=REDIS_WITHIN_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:  # of an option behind the "?"
        raise StartError(f"VOICEGATE_REDIS_URL: {error}") from None
    try:
        client.ping()
    except (RedisError, OSError) as error:
        remedy = "start it"
        if isinstance(error, AuthenticationError):
            remedy = "put its user and password into the URL"
        raise StartError(
            "VOICEGATE_REDIS_URL: no Redis can be used there "
            f"({redis_place(settings.redis_url)}: {text_of(error)}); {remedy}, "
            "or unset the setting to use the embedded Valkey"
        ) from None
    finally:
        client.close()


def main() -> None:
    """Tries and makes all of it, for the settings in force."""
    settings = load()
    json_log.configure("prepare", settings.log_level)
    reach_redis(settings)
    prepare(settings)


if __name__ == "__main__":
    main()
