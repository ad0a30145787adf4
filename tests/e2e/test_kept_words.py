"""A gateway keeps a caller's words where its plan says so, and nowhere else: every byte is looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from gateway.cli.caller.call_request import CallRequest
from gateway.cli.caller.testphone import place_call, place_calls
from gateway.config.paths import grant_keys_path
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from tests.e2e.gateway_process import House, free_port
from tests.needs import HANGS_S, goldens, need_model

pytestmark = pytest.mark.e2e

PLANTED = "zyzzyva"
"""What the recogniser hears, whatever is said."""
FAILED = "quizzify"
"""What the text of an engine's error holds."""
TOKEN = "a-token-of-engine-and-gateway"
CARD = (
    "My card number is four five three nine, one four eight eight, zero three four three, six four six seven."
)
REDACTED = re.compile(r"\[(card )?number\]")
"""A card's number, also where a digit of it was misheard: then it is a long number like others."""
CARD_KEPT = re.compile(rb"4539\W?1488|nine\W+one\W+four\W+eight", re.IGNORECASE)
"""Digits of it, however a recogniser writes them."""
PLAN = """
[[route]]
name = "demo"
called = ["demo"]
keep = {{ transcript = {keeps}, caller_audio = true }}
do = [
  {{ verb = "answer" }},
  {{ verb = "disclose", principal = "Acme", language = "en", text = "What you say is written down." }},
  {{ verb = "converse", instructions = "x", greeting = "How can I help?", silence_s = 20.0, max_s = 14.0 }},
]
"""
TWO_ROUTES = """
[[route]]
name = "kept"
called = ["kept"]
keep = { transcript = true, caller_audio = false }
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en", text = "What you say is written down." },
  { verb = "converse", instructions = "x", greeting = "Hello.", silence_s = 20.0 },
]

[[route]]
name = "unkept"
called = ["unkept"]
keep = { transcript = false, caller_audio = false }
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en", text = "What you say is heard." },
  { verb = "converse", instructions = "x", greeting = "Hello.", silence_s = 20.0 },
]
"""


@contextmanager
def engine(house: House, port: int) -> Iterator[Path]:
    """A scripted engine elsewhere, and its log."""
    log = house.folder / "engine.log"
    argv = [
        sys.executable, "-m", "tests.e2e.scripted_engine", f"the {PLANTED} is broken", FAILED,
        "--port", str(port), "--keys", str(keys_of(house)), "--front", house.url,
    ]  # fmt: skip
    environ = {**os.environ, "VOICEGATE_ENGINE_TOKEN": TOKEN, "VOICEGATE_LOG_LEVEL": "debug"}
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=environ, stdout=out, stderr=out, cwd=Path(__file__).parents[2])
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)


def keys_of(house: House) -> Path:
    """What the engine verifies grants with."""
    return grant_keys_path(Settings(data_dir=house.folder / "data"))


def in_redis(house: House) -> bytes:
    """All that the gateway's Redis holds."""
    redis = Redis(unix_socket_path=str(runtime_for(house.folder / "data").redis))
    found = [redis.dump(key) or b"" for key in redis.scan_iter("*")]
    streams = [repr(redis.xrange(key)).encode() for key in redis.scan_iter("vg:events:*")]
    lists = [repr(redis.lrange(key, 0, -1)).encode() for key in redis.scan_iter("vg:history:*")]
    hashes = [repr(redis.hgetall(key)).encode() for key in redis.scan_iter("vg:call:*")]
    redis.close()
    return b"\n".join([*found, *streams, *lists, *hashes])


def on_disk(*folders: Path) -> dict[Path, bytes]:
    """Every file: logs, SQL, what Redis wrote, sounds."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.read_bytes() for path in found if path.is_file()}


@pytest.mark.long("a conversation in real time with an engine elsewhere")
@pytest.mark.parametrize("keeps", [False, True])
def test_what_the_recogniser_heard_is_nowhere_unless_the_plan_keeps_it(
    tmp_path: Path, say: Callable[[str], Path], keeps: bool
) -> None:
    port = free_port()
    house = House(
        tmp_path, engine_url=f"ws://127.0.0.1:{port}", engine_token=TOKEN, log_level="debug", web_lines=0
    )
    plans = tmp_path / "data" / "dialplans"
    plans.mkdir(parents=True)
    (plans / "plan.toml").write_text(PLAN.format(keeps=str(keeps).lower()))
    starting = threading.Thread(target=house.start)
    starting.start()  # it is up once it has an engine, which needs its keys
    try:
        house.wait_for("keys", keys_of(house).exists, HANGS_S)
        with engine(house, port):
            starting.join()
            house.wait_for("the engine", house.ready, HANGS_S)
            report = place_call(house.uri, script=[say("one two three"), say("four five six")])
            assert report.answered
            house.wait_for("its end", lambda: house.events("call.ended"), HANGS_S)
            redis = in_redis(house)
    finally:
        house.stop()
    assert b'"who": "caller"' in redis, "it was noted that they spoke"
    found = [str(path) for path, content in on_disk(tmp_path).items() if PLANTED.encode() in content]
    assert (PLANTED.encode() in redis) is keeps
    assert bool(found) is keeps, found
    assert not [path for path, content in on_disk(tmp_path).items() if FAILED.encode() in content]
    assert "commit.failed" in (tmp_path / "engine.log").read_text(), "and the engine did fail once"


def caller_turns(house: House, route: str) -> list[str | None]:
    """The words of each of the caller's turns in the record of the call that took this route."""
    (call,) = (call for call in house.calls() if call["route"] == route)
    events = house.get(f"/api/calls/{call['call_id']}")["events"]
    turns = [event["data"] for event in events if event["kind"] == "turn"]
    return [turn.get("text") for turn in turns if turn["who"] == "caller"]


@pytest.mark.long("a whole gateway loads Chroma, and two calls are held in real time")
def test_what_callers_say_to_chroma_is_written_down_where_the_plan_says_so(
    tmp_path: Path, say: Callable[[str], Path]
) -> None:
    need_model("whisper-tiny-en")
    house = House(
        tmp_path, engine="chroma", chroma=goldens() / "chroma-a", chroma_reply_s=1.2, engine_calls=4,
        log_level="debug", web_lines=0, wide_calls=0,
    )  # fmt: skip
    plans = tmp_path / "data" / "dialplans"
    plans.mkdir(parents=True)
    (plans / "plan.toml").write_text(TWO_ROUTES)
    said = {
        "kept": [say("Tomorrow my grandmother wants to see the elephant."), say(CARD)],
        "unkept": [say("Could you tell my brother about the pyramids in Egypt, please?"), say(CARD)],
    }
    house.start()
    try:
        calls = [
            CallRequest(uri=house.uri.replace("demo", name), script=script) for name, script in said.items()
        ]
        for report in place_calls(calls):
            assert report.answered, report.ended
        house.wait_for("their end", lambda: len(house.events("call.ended")) == len(said), HANGS_S)
        house.wait_for(
            "the last words", lambda: len(caller_turns(house, "kept")) >= len(said["kept"]), HANGS_S
        )
        kept, unkept = caller_turns(house, "kept"), caller_turns(house, "unkept")
        redis = in_redis(house)
        files = on_disk(tmp_path, runtime_for(tmp_path / "data").path)
    finally:
        house.stop()
    files |= on_disk(tmp_path)
    assert any("elephant" in (text or "") for text in kept), kept
    assert any(REDACTED.search(text or "") for text in kept), kept
    assert len(unkept) >= len(said["unkept"]), "they were heard, too"
    assert set(unkept) == {None}
    for content in (redis, *files.values()):
        assert not CARD_KEPT.search(content)
        assert b"pyramid" not in content.lower()
    assert b"elephant" in redis.lower()
