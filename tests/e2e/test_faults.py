"""One fault of each kind, made to happen in a whole gateway: what a caller notices, what an operator notices.

`docs/faults.md` is the table of all of them, and names these tests; those marked `prove` are its long cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import secrets
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.caller.call_request import CallRequest
from gateway.cli.caller.testphone import place_calls
from gateway.phone.rough_line import RoughLine
from tests.e2e.gateway_process import House
from tests.e2e.talking import TALK
from tests.few_descriptors import spare_descriptors
from tests.full_disk import full_disk
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawbrowser import Browser
from tests.gateway.line.rawphone import Message, RawPhone
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

DEMO = Path(__file__).parents[2] / "dialplans" / "10-demo.toml"
MAILBOX = """
[[route]]
name = "mailbox"
called = ["mailbox"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "record", announce = "Go on.", max_s = 60.0, silence_s = 30.0 },
  { verb = "hangup", say = "Thank you." },
]
"""
RTP_PORT = 3000 + 500 * secrets.randbelow(12)
"""The first of the lines' ports: below those that the kernel gives out."""
RTP_PORTS = 400
"""More than all lines of the gateway have."""
Notice = Callable[[str, object], None]
"""pytest's `record_property`: "caller" or "operator", and what they noticed"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway, to which the tests of this module do harm by turns, and which is whole after each."""
    folder = tmp_path_factory.mktemp("faulty")
    house = House(folder, sip_lines=2, narrow_calls=4, wide_calls=0, rtp_port=RTP_PORT)
    house.plan(TALK + MAILBOX + DEMO.read_text())
    house.start()
    try:
        yield house
    finally:
        house.stop()


@pytest.fixture
async def phones(faulty: House, request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Opens telephones, which hang up in the end: the gateway is whole by then, and told no traceback."""
    opened: list[RawPhone] = []
    mark = log_size(faulty)

    async def phone(dials: str = "talk") -> RawPhone:
        one = await RawPhone(("127.0.0.1", faulty.sip_port), dials=dials).open()
        opened.append(one)
        return one

    yield phone
    for one in opened:
        if one.to_tag:
            one.send("BYE")
        one.close()
    await passes(faulty, lambda: faulty.ready() and not living(faulty))
    if "memory" not in request.node.name:  # without it anything may fail
        tracebacks = [line for line in told_since(faulty, mark) if "exception" in line]
        assert not tracebacks, "whatever happens, a line says it"


def living(house: House) -> list[dict[str, Any]]:
    return [call for call in house.calls() if call["state"] != "ended"]


def log_size(house: House) -> int:
    return len(house.log_path.read_text(errors="replace"))


def told_since(house: House, mark: int) -> list[dict[str, Any]]:
    """The log's lines from there on."""
    lines = house.log_path.read_text(errors="replace")[mark:].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


async def passes(house: House, whole: Callable[[], bool], within_s: float = HANGS_S) -> None:
    """Waits, without holding up the telephones."""
    await asyncio.to_thread(house.wait_for, "what passes", whole, within_s)


async def calls(phone: RawPhone) -> Message:
    """The final answer to its INVITE."""
    phone.invite("")
    async with asyncio.timeout(HANGS_S):
        while True:
            with contextlib.suppress(TimeoutError):
                answer = await phone.final()
                break
    phone.acknowledge()
    return answer


async def talks(phone: RawPhone) -> RawPhone:
    """A call that is up, and in which it was heard that somebody speaks."""
    answer = await calls(phone)
    assert answer.status == 200, answer.start
    phone.talk(tone(1000, 0.0, rate_hz=8000))
    await phone.hears_loud(HANGS_S)
    return phone


async def hears_on(phone: RawPhone) -> None:
    """Half a second more comes, without a hole of a second."""
    await phone.hears(0.5, 1.5)


def readyz(house: House) -> dict[str, str]:
    """How its parts are."""
    try:
        with urllib.request.urlopen(house.url + "/readyz", timeout=HANGS_S) as answer:
            return dict(json.loads(answer.read())["parts"])
    except urllib.error.HTTPError as refused:
        return dict(json.loads(refused.read())["parts"])


def metric(house: House, start: str) -> float:
    """The sum of the samples whose line starts so."""
    lines = house.get("/metrics").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def how_it_ended(house: House, event: str = "call.ended") -> str:
    return str(house.events(event)[-1]["how"])


# ── 7: SQL is away ───────────────────────────────────────────────────────────────────────────────────


async def test_a_database_that_takes_nothing_refuses_new_calls_and_the_others_talk_on(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    before = len(faulty.events("registry.not_entered"))
    with contextlib.closing(sqlite3.connect(faulty.folder / "data" / "voicegate.db")) as other:
        other.execute("BEGIN IMMEDIATE")  # another process writes, and does not end
        began = time.monotonic()
        refused = await calls(await phones())
        took_s = time.monotonic() - began
        assert refused.status == 503
        assert refused.headers.get("retry-after")
        await hears_on(running)
        told = faulty.events("registry.not_entered")[before:]
        await passes(faulty, lambda: readyz(faulty)["SQL"] != "ready")
        other.rollback()
    assert took_s < 12, "the caller is not left waiting"
    await passes(faulty, faulty.ready)
    await talks(await phones())
    record_property("caller", f"503 with Retry-After after {took_s:.1f} s; in a call nothing")
    record_property("operator", f"`registry.not_entered` ({told[0]['error']}); part `SQL`")


# ── 8: a disk is full ────────────────────────────────────────────────────────────────────────────────


async def test_a_full_disk_under_registry_and_log_refuses_calls_and_says_so_when_there_is_room(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    with full_disk(faulty.pids()["front"]):
        refused = await calls(await phones())
        assert refused.status == 503
        await passes(faulty, lambda: readyz(faulty)["SQL"] == "down")
        await hears_on(running)
        assert metric(faulty, 'voicegate_calls_refused_total{status="503"') >= 1
    await passes(faulty, faulty.ready)
    await talks(await phones())
    (lost,) = [event for event in faulty.events("log.lost") if event["process"] == "front"]
    assert lost["error"] == "File too large"
    record_property("caller", "503; in a call nothing")
    record_property("operator", f"part `SQL`; `log.lost` afterwards ({lost['lines']} lines)")


async def test_a_full_disk_under_a_message_ends_the_call_that_leaves_it(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    with full_disk(faulty.pids()["hall0"]):
        phone = await talks(await phones("mailbox"))
        await phone.request("BYE", HANGS_S)
        phone.to_tag = ""
        await hears_on(running)
    await passes(faulty, lambda: any(c.get("how", "").startswith("failed: the rec") for c in faulty.calls()))
    record_property("caller", "a BYE instead of the thanks; in other calls nothing")
    record_property("operator", "`how`: `failed: the recording could not be kept`; `log.lost` afterwards")


# ── 2: a web line dies ───────────────────────────────────────────────────────────────────────────────


def placed(house: House, offer: str) -> tuple[str, str]:
    """A browser's call: its id, and the answer."""
    headers = {"Content-Type": "application/sdp", **house.bearer}
    request = urllib.request.Request(house.url + "/api/call?dialled=talk", offer.encode(), headers)
    with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
        return answer.headers["Location"].rpartition("/")[2].partition(".")[0], answer.read().decode()


async def browses(house: House) -> tuple[Browser, str]:
    """A browser whose call is up, and the call's id."""
    browser = Browser()
    call_id, answer = await asyncio.to_thread(placed, house, await browser.offer())
    await browser.accept(answer)
    return browser, call_id


async def test_a_web_line_dies_and_its_callers_page_can_know_it_at_once(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    browser, call_id = await browses(faulty)
    await passes(faulty, lambda: faulty.get(f"/api/calls/{call_id}")["state"] == "confirmed")
    ups = sum(event.get("line") == "web0" for event in faulty.events("line.up"))
    faulty.kill("web0")
    began = time.monotonic()
    await passes(faulty, lambda: faulty.get(f"/api/calls/{call_id}")["state"] == "ended")
    took_s = time.monotonic() - began
    assert faulty.get(f"/api/calls/{call_id}")["how"] == "failed: its line died"
    await hears_on(running)
    await passes(faulty, lambda: sum(e.get("line") == "web0" for e in faulty.events("line.up")) > ups)
    await passes(faulty, faulty.ready)
    after, _ = await browses(faulty)
    for each in (browser, after):
        await each.connection.close()
    record_property("caller", f"the page can know it after {took_s:.1f} s; others nothing")
    record_property("operator", "`process.died`, `line.down`; `how`: `failed: its line died`")


# ── 10, 11: a rough way ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.prove
@pytest.mark.long("two questions in real time")
@pytest.mark.parametrize(
    "line",
    [RoughLine(loss_percent=10, heard_loss_percent=10), RoughLine(jitter_ms=100)],
    ids=["loss", "jitter"],
)
def test_a_caller_on_a_rough_line_is_understood(
    faulty: House, line: RoughLine, say: Callable[[str], Path], record_property: Notice
) -> None:
    script = [say("what are your opening hours"), say("where are you")]
    (report,) = place_calls([CallRequest(faulty.uri, script, codec="pcmu", line=line)])
    assert report.answered
    assert report.ended == "we hung up"
    waits = [turn.latency_s for turn in report.turns]
    assert None not in waits, "both questions were understood and answered"
    call_id = max(faulty.calls(), key=lambda call: call["started_at"])["call_id"]
    faulty.wait_for("what its line counted", lambda: counted(faulty, call_id), HANGS_S)
    (seen,) = counted(faulty, call_id)
    if line.loss_percent:
        assert 0.07 < seen["lost"] / (seen["packets"] + seen["lost"]) < 0.13
        assert seen["mos"] < 4.0
    else:
        assert seen["jitter_ms"] > 10
    record_property("caller", f"answers after {', '.join(f'{wait:.1f}' for wait in waits if wait)} s")
    said = {name: seen[name] for name in ("packets", "lost", "jitter_ms", "mos")}
    record_property("operator", f"`line_quality`: {said}")


def counted(house: House, call_id: str) -> list[dict[str, Any]]:
    """What a call's line said of it at its end."""
    events = house.get(f"/api/calls/{call_id}")["events"]
    return [event["data"] for event in events if event["kind"] == "line_quality"]


# ── 12: a NAT gives out another port ─────────────────────────────────────────────────────────────────


async def test_a_nat_that_gives_out_another_port_is_followed(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    phone = await phones()
    answer = await calls(phone)
    phone.talk(tone(1000, rate_hz=8000))
    await phone.hears_loud(HANGS_S)
    moved = metric(faulty, 'voicegate_alarms_total{kind="rtp moved"}')
    before = phone._rtp
    await phone.move()
    before.close()
    began = time.monotonic()
    await phone.hears(0.02, HANGS_S)
    took_s = time.monotonic() - began
    assert took_s < 2.0
    await hears_on(phone)
    await passes(faulty, lambda: metric(faulty, 'voicegate_alarms_total{kind="rtp moved"}') == moved + 1)
    assert bye_from_elsewhere(faulty, phone, answer) == 200
    phone.to_tag = ""
    record_property("caller", f"a gap of {took_s:.2f} s")
    record_property("operator", "`rtp.moved`, alarm `rtp moved`")


def bye_from_elsewhere(house: House, phone: RawPhone, answer: Message) -> int:
    """The answer to a BYE that comes from another port than the INVITE, with the routes of its answer."""
    target = re.search(r"<([^>]+)>", answer.headers["contact"])
    assert target is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip:
        sip.bind(("127.0.0.1", 0))
        sip.settimeout(HANGS_S)
        text = (
            f"BYE {target[1]} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{sip.getsockname()[1]};"
            f"branch=z9hG4bKelsewhere;rport\r\nMax-Forwards: 70\r\n"
            f"Route: {answer.headers['record-route']}\r\n"
            f"From: <sip:raw@127.0.0.1>;tag={phone.tag}\r\nTo: {answer.headers['to']}\r\n"
            f"Call-ID: {phone.sip_call_id}\r\nCSeq: 99 BYE\r\nContent-Length: 0\r\n\r\n"
        )
        sip.sendto(text.encode(), ("127.0.0.1", house.sip_port))
        return Message.parse(sip.recv(65535)).status


# ── 14: no RTP port is free ──────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def no_rtp_port() -> Iterator[None]:
    """All of the gateway's that are free now are somebody else's."""
    with contextlib.ExitStack() as held:
        for port in range(RTP_PORT, RTP_PORT + RTP_PORTS):
            sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):  # a running call's
                sock.bind(("127.0.0.1", port))
        yield


async def test_without_a_port_a_call_is_refused_and_the_others_talk_on(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    refusals = len(faulty.events("call.refused"))
    with no_rtp_port():
        refused = await calls(await phones())
        assert refused.status == 503, refused.start
        await hears_on(running)
    assert len(faulty.events("call.refused")) == refusals + 1
    await talks(await phones())
    why = faulty.events("line.refused")[-1]["why"]
    assert "of UDP ports is free" in why
    record_property("caller", f"{refused.status} {refused.reason}; in a call nothing")
    record_property("operator", f"`line.refused` ({why}), `call.refused`")


# ── 15, 16: no descriptor, no memory is left ─────────────────────────────────────────────────────────


def warnings(lines: list[dict[str, Any]]) -> str:
    """The events that an operator should look at."""
    return ", ".join(
        sorted({f"`{line['event']}`" for line in lines if line["level"] not in ("info", "debug")})
    )


async def what_comes(phone: RawPhone) -> str:
    """What a caller meets: a refusal, or that somebody speaks, and when."""
    answer = await calls(phone)
    if answer.status != 200:
        phone.to_tag = ""
        return f"{answer.status} {answer.reason}"
    phone.talk(tone(1000, 0.0, rate_hz=8000))
    began = time.monotonic()
    heard = asyncio.create_task(phone.hears_loud(HANGS_S))
    bye = asyncio.create_task(phone.request("BYE", HANGS_S))
    done, left = await asyncio.wait({heard, bye}, return_when=asyncio.FIRST_COMPLETED)
    for each in left:
        each.cancel()
    if heard not in done:
        phone.to_tag = ""
    what = "spoken to" if heard in done else "a BYE"
    return f"answered, {what} after {time.monotonic() - began:.0f} s"


async def test_a_front_without_descriptors_says_so_and_takes_calls_all_the_same(
    faulty: House, phones: Callable[..., Any], record_property: Notice
) -> None:
    running = await talks(await phones())
    mark = log_size(faulty)
    with spare_descriptors(0, faulty.pids()["front"]):
        with socket.create_connection(("127.0.0.1", faulty.http_port), HANGS_S):  # nobody gets in by HTTP
            await passes(faulty, lambda: bool(faulty.events("resources.spent")))
        answer = await calls(await phones())
        assert answer.status in (200, 503), "what it needs for a call may be open"
        await asyncio.sleep(1.5)  # asyncio tries thousands of times meanwhile
        await hears_on(running)
    await passes(faulty, faulty.ready)
    told = told_since(faulty, mark)
    assert len(told) < 60, "it is said, and not said a thousand times"
    await talks(await phones())
    if answer.status != 200:
        assert answer.headers.get("retry-after")
    record_property("caller", f"front: {answer.status}; in a call nothing")
    record_property("operator", f"front: no HTTP; {warnings(told)}")


@pytest.mark.prove
@pytest.mark.parametrize("process", ["front", "hall0", "engine", "office", "redis"])
async def test_a_process_without_descriptors_harms_no_running_call(
    faulty: House, phones: Callable[..., Any], record_property: Notice, process: str
) -> None:
    running = await talks(await phones())
    mark = log_size(faulty)
    with spare_descriptors(0, faulty.pids()[process]):
        met = await what_comes(await phones())
        await hears_on(running)
    await passes(faulty, faulty.ready)
    told = told_since(faulty, mark)
    assert len(told) < 60, "it is said, and not said a thousand times"
    await talks(await phones())
    record_property("caller", f"{process}: {met}; in a call nothing")
    record_property("operator", f"{process}: {warnings(told) or 'nothing'}")


MEMORY = ["hall0", *(pytest.param(each, marks=pytest.mark.prove) for each in ("front", "engine", "office"))]


@pytest.mark.parametrize("process", MEMORY)
async def test_a_process_without_memory_ends_if_it_must_and_its_next_goes_on(
    faulty: House, phones: Callable[..., Any], record_property: Notice, process: str
) -> None:
    running = await talks(await phones())
    mark = log_size(faulty)
    first = faulty.pids()[process]
    with no_more_memory(first):
        met = [await what_comes(await phones()) for _ in range(4)]
    fate = await fate_of(running)
    await passes(faulty, faulty.ready)
    died = faulty.pids()[process] != first
    told = told_since(faulty, mark)
    assert len([line for line in told if line["event"] == "task.failed"]) < 20, "it does not go on for long"
    await talks(await phones())
    assert died or fate == "goes on" or faulty.events("call.failed")
    record_property("caller", f"{process}: {', '.join(sorted(set(met)))}; a running call {fate}")
    how = "it died, and its next is there" if died else "it lives"
    record_property("operator", f"{process}: {how}; {warnings(told) or 'nothing else'}")


async def fate_of(phone: RawPhone) -> str:
    """Whether a call goes on; one whose hall is back later than its line waits gets a BYE."""
    heard = asyncio.create_task(phone.hears(0.5, HANGS_S))
    bye = asyncio.create_task(phone.request("BYE", HANGS_S))
    done, left = await asyncio.wait({heard, bye}, return_when=asyncio.FIRST_COMPLETED)
    for each in left:
        each.cancel()
    if heard in done:
        return "goes on"
    phone.to_tag = ""
    return "gets a BYE"


@contextlib.contextmanager
def no_more_memory(pid: int) -> Iterator[None]:
    """That process gets no more pages; what it has it may use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it died of it: its next has no limit
            resource.prlimit(pid, resource.RLIMIT_AS, (soft, hard))
