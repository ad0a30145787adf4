"""kill -9 of an engine's replica during a call: the other replica goes on with it within two seconds.

One Ray cluster on loopback: two replicas of the embedded engine, for a whole gateway and its telephone, and
two of the golden Chroma checkpoint, for the hall's side of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from redis import Redis
from starlette.applications import Starlette

from consent.office.office import ConsentOffice
from gateway.config.paths import consent_dir, office_socket
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from gateway.dialplan import Route
from gateway.front.halls.grant_door import GrantDoor
from gateway.front.http.engine_door import engine_door, redeem_door, withdrawn_door
from gateway.hall.dialogue.memory import Memory
from gateway.hall.dialogue.prompts import Prompts
from gateway.hall.dialogue.speech import Speech
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.licence import Licence
from gateway.hall.parts.playout import Playout
from gateway.ipc.front_messages import WithdrawnVoices
from gateway.run.office_child import office_place
from gateway.run.prepare import prepare
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.registry import Registry
from model.client import EngineClient
from model.embedded.phrase_match import plain
from tests.consent.service.served import serving
from tests.e2e.cluster import TOKEN, Cluster
from tests.e2e.gateway_process import House, free_port
from tests.e2e.test_deaths import Calling
from tests.model.voices import Clip, asker, grant_of
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

GOES_ON_WITHIN_S = 2.0
ANSWER = "We are open"

Say = Callable[[str], Path]


@dataclass
class Site:
    """The cluster and what a gateway beside it needs."""

    cluster: Cluster
    house: House
    office: ConsentOffice
    desk_port: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port, desk_port = free_port(), free_port()
    house = House(
        folder / "house",
        engine_url=f"http://127.0.0.1:{port}/embedded",
        engine_token=TOKEN,
        dialplans=_dialplan(folder / "dialplans"),
    )
    house.folder.mkdir()
    settings = Settings(data_dir=house.folder / "data")
    settings.data_dir.mkdir()
    with serving(office_place(settings), office_socket(settings)):
        prepare(settings)
    office = ConsentOffice.open(settings.sql, consent_dir(settings))
    beside = Path(__file__).parents[3] / "shared" / "goldens"
    golden = Path(os.environ.get("VOICEGATE_GOLDENS") or beside) / "chroma-a"
    assert (golden / "config.json").is_file(), f"no goldens at {golden}; set VOICEGATE_GOLDENS"
    cluster = Cluster(
        folder, port, consent_dir(settings) / "grant-keys.json",
        {"embedded": house.url, "chroma": f"http://127.0.0.1:{desk_port}"},
        chroma=golden, chroma_device="cpu", chroma_reply_s=4, engine_calls=4,
    )  # fmt: skip
    try:
        cluster.wait()
        house.start()
        yield Site(cluster, house, office, desk_port)
    finally:
        office.close()
        with contextlib.ExitStack() as stack:
            stack.callback(cluster.stop)
            stack.callback(house.stop)


def _dialplan(folder: Path) -> Path:
    """The shipped one, with less to say before it listens."""
    folder.mkdir()
    text = (Path(__file__).parents[2] / "dialplans" / "10-demo.toml").read_text()
    text = re.sub(r'\nbefore = "Hello."\ntext = .*', "", text)
    text = re.sub(r"\ngreeting = .*", '\ngreeting = "How can I help?"', text)
    (folder / "10-demo.toml").write_text(text)
    return folder


@pytest.mark.long("Ray starts two engines with two replicas each, and a call is held in real time")
def test_a_replica_dies_and_the_telephone_hears_of_it_nothing(site: Site, say: Say) -> None:
    house, cluster = site.house, site.cluster
    house.wait_for("the prompts", lambda: not _in_use(cluster, "embedded"), 30)
    questions = [say("what are your opening hours"), say("could you repeat that please")]
    calling = Calling(house, script=questions, at_s=7, duration_s=26, codec="pcmu")
    (call,) = [call for call in house.calls() if call["state"] != "ended"]
    house.wait_for("the first answer", lambda: ANSWER in _remembered(house, call["call_id"]), 25)
    dead, killed = cluster.kill_the_one_in_use("embedded"), time.time()
    house.wait_for("another replica", lambda: _in_use(cluster, "embedded", but=dead), HANGS_S)
    took = _back_at(house, call["call_id"]) - killed
    report = calling.ended()
    assert "we hung up" in report.ended, report.ended
    assert took < GOES_ON_WITHIN_S
    assert report.turns[1].latency_s is not None, "the other replica answered"
    assert report.turns[1].latency_s < 3.0
    asked, answered = house.get(f"/api/calls/{call['call_id']}")["turns"][-2:]
    assert plain(asked["text"]) == "could you repeat that please"
    assert ANSWER in answered["text"], "it knew from the history what to say again"
    print(f"\nanother replica had the call {took:.2f} s after the kill")


def _in_use(cluster: Cluster, engine: str, but: str = "") -> list[str]:
    return [r["replica"] for r in cluster.engines(engine) if r["used"] and r["replica"] != but]


def _back_at(house: House, call_id: str) -> float:
    """When the call had its other replica by the hall's clock: the placement tells of it when it has time."""
    (back,) = [event for event in house.events("engine.back") if event["call_id"] == call_id]
    return datetime.fromisoformat(back["timestamp"]).timestamp()


def _remembered(house: House, call_id: str) -> str:
    with Redis(unix_socket_path=str(runtime_for(house.folder / "data").redis)) as redis:
        return str(redis.lrange(f"vg:history:{call_id}", 0, -1))


@pytest.mark.long("Ray starts two engines with two replicas each, and a call is held in real time")
async def test_a_replica_of_chroma_dies_and_the_next_words_are_heard(site: Site) -> None:
    cluster = site.cluster
    fetched: list[str] = []
    at = np.arange(48_000, dtype=np.float32) / 24_000  # two seconds of something like speech
    clip = (0.2 * np.sin(2 * np.pi * 140 * at) * (1 + np.sin(2 * np.pi * 3 * at)) / 2).astype(np.float32)
    with _voice_desk(site, clip, fetched):
        engine = EngineClient(cluster.url("chroma"), boot_token=TOKEN)
        said = [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "where are you"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "here"}]},
        ]
        line, memory = CallLine("c1", page=False), Memory(said)
        speech = Speech("c1", engine, Playout(0.0), Prompts(), 1.0, line=line, memory=memory)
        route = Route(name="demo", voice="jane", purpose="support", language="en")
        licence = Licence(route)

        def granted() -> None:
            licence.use(site.office.verifier.verify(grant_of(site.office, clip, "ah")), 0)

        async def fresh() -> None:
            licence.follow(route, 0)
            granted()

        granted()
        life = asyncio.create_task(speech.run(licence, lambda _: None, fresh=fresh))
        try:
            first = speech.say("good morning, what can I do for you")
            async with asyncio.timeout(20):
                await first.ready.wait()
            dead = await asyncio.to_thread(_kill_when_known, site)
            killed = time.monotonic()
            next_words = speech.say("you find us at the old water tower")
            async with asyncio.timeout(10):
                await next_words.ready.wait()
            took = time.monotonic() - killed
            assert next_words.queued, "there is sound, not only an end"
            assert took < GOES_ON_WITHIN_S
            print(f"\nthe next words sounded {took:.2f} s after the kill")
            await asyncio.to_thread(
                site.house.wait_for, "the other", lambda: _in_use(cluster, "chroma", but=dead), HANGS_S
            )
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
    assert len(fetched) == 2, "each replica fetched the voice with the grant"


def _kill_when_known(site: Site) -> str:
    """Kills the conversation's replica, once the placement knows which it is."""
    site.house.wait_for("the report", lambda: _in_use(site.cluster, "chroma"), HANGS_S)
    return site.cluster.kill_the_one_in_use("chroma")


@contextlib.contextmanager
def _voice_desk(site: Site, clip: Clip, fetched: list[str]) -> Iterator[None]:
    """A front with that voice."""
    registry = Registry.open(f"sqlite:///{site.house.folder}/redeemed.db")
    redeemed = RedeemedGrants(registry)
    redeemed.open()
    doors = [
        engine_door(asker(site.office, clip, "ah", fetched), TOKEN),
        redeem_door(GrantDoor(redeemed, site.office.public_keys_path).redeem, TOKEN),
        withdrawn_door(lambda series, _: WithdrawnVoices(series, (), 0.0), TOKEN),
    ]
    app = Starlette(routes=doors)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=site.desk_port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        registry.close()
