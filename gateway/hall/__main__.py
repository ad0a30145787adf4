"""`python -m gateway.hall --name hall0`: one hall process, started by the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click
import structlog

from consent.grants.grant import GrantVerifier
from consent.grants.revocation_feed import RevocationFeed
from gateway.config import settings
from gateway.config.paths import grant_keys_path, mark_keys_path, redis_url_for
from gateway.config.runtime import runtime_for
from gateway.hall.calls.tick_pass import Floor
from gateway.hall.dialogue.scribe import Scribe
from gateway.hall.hall import Hall
from gateway.store.sessions import Sessions
from model import heap, json_log
from model.client import EngineClient
from model.ears import SOCKET_VARIABLE
from model.ears.ears_client import Ears
from model.tasks import watch_loop
from watermark.keys import KeyRing
from watermark.mark import MarkerBank


async def serve(name: str) -> None:
    conf = settings.load()
    json_log.configure(name, conf.log_level)
    watch_loop()
    runtime = runtime_for(conf.data_dir)
    token = os.environ.get("VOICEGATE_BOOT_TOKEN") or runtime.token()
    redis_url = redis_url_for(conf, runtime)
    verifier = GrantVerifier.load(grant_keys_path(conf))
    sessions = await Sessions.open(redis_url, ttl_s=conf.session_ttl_s, name=name)
    traced = conf.otlp_url is not None
    engine = EngineClient(str(runtime.engine), boot_token=token, traced=traced)
    if conf.engine_url and conf.engine_token is not None:
        shared = conf.engine_token.get_secret_value()
        engine = EngineClient(conf.engine_url, boot_token=shared, traced=traced)
    mark_key = KeyRing.load(mark_keys_path(conf)).current
    ears = Ears(Path(os.environ[SOCKET_VARIABLE])) if SOCKET_VARIABLE in os.environ else None
    hall = Hall(
        name=name,
        settings=conf,
        runtime=runtime,
        token=token,
        floor=Floor(MarkerBank(mark_key), mark_key),
        sessions=sessions,
        engine=engine,
        verifier=verifier,
        feed=RevocationFeed(redis_url, verifier, sessions.watch),
        ears=ears,
        scribe=Scribe(ears),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await hall.start()
    heap.settle()
    structlog.get_logger("hall").info("hall.up", name=name)
    await stop.wait()
    await hall.stop()
    if ears is not None:
        await ears.close()


@click.command()
@click.option("--name", required=True)
def main(name: str) -> None:
    asyncio.run(serve(name))


if __name__ == "__main__":
    main()
