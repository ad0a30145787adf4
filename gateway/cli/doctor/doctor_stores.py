"""What the doctor looks at of what the gateway keeps: Redis, database, keys, ledger, consent office."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from consent.errors import ConsentError, OfficeAway
from consent.grants.scope import STOCK
from consent.ledger.head_keeper import UNWITNESSED
from consent.ledger.witness import Outside
from consent.service.front_questions import AskLedger
from consent.service.office_client import OfficeClient
from consent.service.office_door import keys_readable_by
from consent.service.operator_questions import AskFacts
from gateway.cli.doctor.diagnosis import Diagnosis, ok
from gateway.cli.house.office_command import asked_office, known_names
from gateway.config.paths import grant_keys_path, mark_keys_path, office_socket
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from gateway.errors import VoicegateError
from gateway.run import redis_server
from gateway.store.registry import Registry
from watermark.errors import WatermarkError
from watermark.keys import KeyRing


def redis(settings: Settings) -> Iterator[Diagnosis]:
    """Asks the Redis in force, or starts the embedded one to see that it can be."""
    runtime = runtime_for(settings.data_dir)
    if settings.redis_url is not None:
        yield from _redis_at(
            settings.redis_url, "start it, or unset VOICEGATE_REDIS_URL to use the embedded one"
        )
    elif runtime.held():
        yield from _redis_at(f"unix://{runtime.redis}", "see redis/valkey.log in the data directory")
    else:
        yield _embedded_redis()


def _redis_at(url: str, fix: str) -> Iterator[Diagnosis]:
    try:
        client: Any = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)
    except ValueError as error:
        yield Diagnosis("Redis", "fail", str(error), "VOICEGATE_REDIS_URL is redis://, rediss:// or unix://")
        return
    try:
        info = client.info()
    except (RedisError, OSError) as error:
        yield Diagnosis("Redis", "fail", f"does not answer: {error}", fix)
        return
    finally:
        client.close()
    version = info.get("valkey_version") or info.get("redis_version")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        fix = "set its maxmemory-policy to noeviction or volatile-ttl"
        yield Diagnosis("Redis", "warn", f"{version} forgets living calls when full ({policy})", fix)
    elif not info.get("aof_enabled"):
        yield Diagnosis("Redis", "warn", f"{version} keeps no append-only file", "set its appendonly to yes")
    else:
        yield ok("Redis", f"{version}, append-only file on")


def _embedded_redis() -> Diagnosis:
    """Starts the embedded Valkey in a directory of its own, asks it, and ends it."""
    what = "Redis"
    with tempfile.TemporaryDirectory(prefix="vg-doctor-") as folder:
        path = Path(folder, "redis.sock")
        argv = redis_server.command(path, Path(folder))
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(argv, stdout=log, stderr=log)  # noqa: S603 - our own binary
        try:
            version = redis_server.wait_until_up(path, lambda: server.poll() is None)
            return ok(what, f"embedded Valkey {version} starts")
        except VoicegateError as error:
            return Diagnosis(
                what, "fail", str(error), "set VOICEGATE_REDIS_URL to a Redis or Valkey of your own"
            )
        finally:
            server.terminate()
            server.wait(5)


def sql(settings: Settings) -> Iterator[Diagnosis]:
    """Opens the registry, if there is one."""
    what = "SQL"
    if settings.sql_url is None and not (settings.data_dir / "voicegate.db").exists():
        yield ok(what, "SQLite; the first start makes it")
        return
    try:
        registry = Registry.open(settings.sql)
    except VoicegateError as error:
        yield Diagnosis(what, "fail", str(error), "start the database, or fix VOICEGATE_SQL_URL")
        return
    try:
        calls = registry.count()
    finally:
        registry.close()
    yield ok(what, f"{registry.backend}, {calls} calls entered")


def witnesses(settings: Settings) -> Iterator[Diagnosis]:
    """Asks who keeps the consent ledger's head outside, and whether they have seen more than is here."""
    what = "ledger's witness"
    outside = Outside(settings.redis_url, settings.ledger_witness)
    try:
        if outside == Outside():
            persons = known_names(settings) - {STOCK}
            fix = "set VOICEGATE_LEDGER_WITNESS (a URL elsewhere), or VOICEGATE_REDIS_URL (a Redis of yours)"
            yield Diagnosis(what, "warn", UNWITNESSED, fix) if persons else ok(what, UNWITNESSED)
        elif settings.office_socket is None and not grant_keys_path(settings).exists():
            yield ok(what, "the first start tells it of the ledger")
        else:
            with asked_office(settings) as client:
                ledger = client.ask(AskLedger())
            state, doubt = ledger.state, ledger.doubt
            yield Diagnosis(what, "warn", state, "see docs/consent.md, Restore") if doubt else ok(what, state)
    except ConsentError as error:
        yield Diagnosis(what, "fail", str(error), "fix what it names")


def office(settings: Settings) -> Iterator[Diagnosis]:
    """Looks who serves the consent office, and who can therefore read its keys."""
    what = "consent office"
    client = OfficeClient(office_socket(settings), back_s=0.0)
    try:
        facts = client.ask(AskFacts())
    except OfficeAway as error:
        if settings.office_socket is not None:
            fix = "start its service, or unset VOICEGATE_OFFICE_SOCKET: then the gateway runs it"
            yield Diagnosis(what, "fail", str(error), fix)
        else:
            mine = os.getuid()
            yield ok(what, f"it begins with the gateway; it {keys_readable_by(mine, mine)}")
    else:
        yield ok(what, keys_readable_by(facts.user, facts.gateway))
    finally:
        client.close()


def watermark_keys(settings: Settings) -> Iterator[Diagnosis]:
    """Looks which key marks: one of an older version marks less well than this release can."""
    path = mark_keys_path(settings)
    if not path.exists():
        yield ok("watermark keys", f"{path} will be made at the first start")
        return
    try:
        ring = KeyRing.load(path)
    except WatermarkError as error:
        yield Diagnosis("watermark keys", "fail", str(error), "the gateway does not start without its keys")
        return
    key, others = ring.current, len(ring.keys) - 1
    if key.has_envelope:
        text = f"{key.id} marks with both layers, {key.envelope_db:g} dB; {others} older detect too"
        yield ok("watermark keys", text)
    else:
        text = f"{key.id} is of version 1: it marks with the carrier alone, as before"
        fix = f"voicegate watermark rotate {path}, then restart the gateway; {key.id} still detects"
        yield Diagnosis("watermark keys", "warn", text, fix)
