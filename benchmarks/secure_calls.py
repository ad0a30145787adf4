"""What encryption costs both ends of a call: TLS and SRTP against UDP and RTP, and call set-ups a second.

    .venv/bin/python -m benchmarks.secure_calls --calls 20 --seconds 8 --turns 4 --setups 200

Edge, line and callers are processes of their own, and each one's processor time is counted apart, by the
scheduler (`benchmarks.phone_lines.spent_s`), so that other load on the machine counts little. Calls begin,
talk both ways through an echoing hall, and end, turn about in the clear and encrypted. Then calls begin and
end at once, one after the other in four rows: over UDP, over TLS with a connection for each call, and over
TLS by one connection a row. The certificate is on P-256, the handshake TLS 1.3; no session is resumed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.phone_lines import EchoHall, spent_s, talk
from gateway.config.certificate import Certificate
from gateway.config.runtime import Runtime
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.grammar.sdes import CryptoLine
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.sip_proxy import Edge
from gateway.ipc.line_messages import AnswerCall, CallStarted
from tests.gateway.conftest import short_folder
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.peers import KEY, Caller, Desk, Said, TlsCaller
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall
from tests.gateway.rtp.srtp_phone import CRYPTO, USUAL

ROWS: Final = 4
"""Callers who begin and end calls at a time."""
WAYS: Final = ("UDP", "TLS, a connection a call", "TLS, kept")
WITHIN_S: Final = 15.0


@dataclass
class MeasuredHouse:
    """The processes of one turn. `spent` is what each has used so far, in CPU-seconds."""

    edge: asyncio.subprocess.Process
    line: asyncio.subprocess.Process
    callers: asyncio.subprocess.Process

    def spent(self) -> dict[str, float]:
        parts = {"edge": self.edge, "line": self.line, "callers": self.callers}
        return {name: spent_s([one.pid]) for name, one in parts.items()}

    async def tell(self, **what: Any) -> Any:
        """Has the callers do something. Returns what they say of it."""
        assert self.callers.stdin is not None  # both are pipes
        assert self.callers.stdout is not None
        self.callers.stdin.write(json.dumps(what).encode() + b"\n")
        return json.loads(await self.callers.stdout.readline())


async def _process(*argv: str, says: bool = True) -> asyncio.subprocess.Process:
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *argv, stdin=pipe, stdout=pipe if says else none, stderr=None if says else none,
        env={**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def a_house(count: int) -> AsyncIterator[MeasuredHouse]:
    """A line for so many calls, an edge before it, callers, and a hall that takes every call."""
    with short_folder() as folder, tempfile.TemporaryDirectory() as keys:
        runtime = Runtime(folder)
        hall, front = await EchoHall(runtime).start(), await FakeFront(runtime).start()
        hall.keep = False
        authority = Authority(Path(keys))
        chain, key = authority.sign("gate.example")
        line = await _process(
            "gateway.rtp.sip_process", "--number", "0", "--hall", "hall0", "--runtime", str(folder),
            "--narrow", str(count), says=False,
        )  # fmt: skip
        facts = await front.hears_hello("n0")
        await hall.hears_hello("n0")
        edge = await _process(
            "benchmarks.secure_calls", "--as-edge", str(facts.sip_port), str(count), str(chain), str(key)
        )
        assert edge.stdout is not None  # it is a pipe
        ports = json.loads(await edge.stdout.readline())
        callers = await _process(
            "benchmarks.secure_calls", "--as-callers", *map(str, ports), str(authority.ca)
        )
        answering = asyncio.create_task(_answer_all(hall))
        try:
            yield MeasuredHouse(edge, line, callers)
        finally:
            answering.cancel()
            for process in (callers, edge, line):
                process.terminate()
                await process.wait()
            await hall.stop()
            await front.stop()


async def _answer_all(hall: FakeHall) -> None:
    while True:
        started = await hall.hears(CallStarted, within_s=3600)
        await hall.ask(AnswerCall(started.call_id))


# ── the edge's process ───────────────────────────────────────────────────────────────────────────────


async def as_edge(line_port: int, count: int, chain: str, key: str) -> None:
    """Says its two ports, and serves until it is ended."""
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(work: Any) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    config = EdgeConfig(
        host="127.0.0.1", port=0, boot_token=TOKEN, route_key=KEY, invites_per_s=1e6,
        tls=Certificate(Path(chain), Path(key)).serving(),
    )  # fmt: skip
    edge = Edge(config, Desk(), spawn)
    await edge.start()
    edge.line_up(LineInfo("n0", "narrow", line_port, count))
    print(json.dumps([edge.port, edge.tls_port]), flush=True)
    await asyncio.Event().wait()


# ── the callers' process ─────────────────────────────────────────────────────────────────────────────


@dataclass
class MeasuredCaller:
    """One caller in its call."""

    caller: Caller
    sound: socket.socket
    control: socket.socket
    """where RTCP comes, which nobody reads"""
    key: bytes

    def offer(self) -> str:
        """In the clear without a key."""
        port = self.sound.getsockname()[1]
        keys = f"{CryptoLine(1, USUAL, self.key)}\r\n" if self.key else ""
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {port} RTP/{'SAVP' if self.key else 'AVP'} 0\r\n{keys}"
        )

    async def begins(self) -> tuple[int, str, str]:
        """The call is up: where its sound goes, and both keys in hex."""
        caller = self.caller
        caller.call_id, caller.own_tag, caller.cseq = secrets.token_hex(8), secrets.token_hex(4), 0
        caller.to, caller.routes = "<sip:demo@127.0.0.1>", []
        caller.target = "sip:demo@127.0.0.1"
        caller.kept.clear()
        caller.send("INVITE", self.offer())
        try:
            answer = await caller.next(200, "INVITE", WITHIN_S)
        except TimeoutError:
            raise RuntimeError(f"no call: {[one.start for one in caller.kept]}") from None
        caller.learn(answer)
        caller.send("ACK")
        found = CRYPTO.search(answer.body)
        theirs = base64.b64decode(found[3]).hex() if found is not None else ""
        assert bool(theirs) == bool(self.key), answer.body
        return _port(answer), self.key.hex(), theirs

    async def ends(self) -> None:
        self.caller.send("BYE")
        await self.caller.next(200, "BYE", WITHIN_S)

    def close(self) -> None:
        self.caller.close()
        self.sound.close()
        self.control.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Sockets at a port and at the one above it."""
    while True:
        pair = (socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM))
        pair[0].bind(("127.0.0.1", 0))
        with contextlib.suppress(OSError):  # it is somebody's
            pair[1].bind(("127.0.0.1", pair[0].getsockname()[1] + 1))
            pair[0].setblocking(False)
            return pair
        for one in pair:
            one.close()


def _port(answer: Said) -> int:
    return int(answer.body.partition("m=audio ")[2].split()[0])


class Callers:
    """All of them."""

    def __init__(self, sip_port: int, tls_port: int, trust: ssl.SSLContext) -> None:
        self._ports = (sip_port, tls_port)
        self._trust = trust

    async def _talker(self, *, encrypted: bool, keyed: bool) -> MeasuredCaller:
        sound, control = _pair()
        key = secrets.token_bytes(30) if keyed else b""
        return MeasuredCaller(await self._caller(encrypted=encrypted), sound, control, key)

    async def _caller(self, *, encrypted: bool) -> Caller:
        if encrypted:
            return await TlsCaller(self._ports[1], self._trust).open()
        return await Caller(self._ports[0]).open()

    async def talk(self, count: int, seconds: float, *, encrypted: bool) -> dict[str, float]:
        """So many calls at once: how many packets a second came to each, in the mean and at least."""
        talkers = [await self._talker(encrypted=encrypted, keyed=encrypted) for _ in range(count)]
        told = [await one.begins() for one in talkers]
        said = talk([one.sound for one in talkers], told, seconds)
        for one in talkers:
            await one.ends()
            one.close()
        return {"mean": statistics.mean(said["got"]) / seconds, "fewest": min(said["got"]) / seconds}

    async def set_up(self, count: int, way: str) -> float:
        """Calls that begin and end at once; the seconds that they took."""
        began = time.monotonic()
        await asyncio.gather(*(self._row(count // ROWS, way) for _ in range(ROWS)))
        return time.monotonic() - began

    async def _row(self, count: int, way: str) -> None:
        talker = await self._talker(encrypted=way != "UDP", keyed=False)
        for n in range(count):
            if n and way == "TLS, a connection a call":
                talker.caller.close()
                talker.caller = await self._caller(encrypted=True)
            await talker.begins()
            await talker.ends()
        talker.close()


async def as_callers(sip_port: int, tls_port: int, ca: str) -> None:
    """Does as it is told, a line at a time."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(ca)
    callers = Callers(sip_port, tls_port, trust)
    while line := await asyncio.to_thread(sys.stdin.readline):
        what = json.loads(line)
        did = await getattr(callers, what.pop("do"))(**what)
        print(json.dumps(did), flush=True)


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────


def _used(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    used = {name: after[name] - before[name] for name in before}
    return {**used, "gateway": used["edge"] + used["line"]}


async def measure_talk(count: int, seconds: float, turns: int) -> None:
    """Turn about; a turn that is not counted comes first."""
    spent: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    async with a_house(count) as house:
        await house.tell(do="talk", count=count, seconds=1.0, encrypted=True)
        for turn in range(turns):
            for encrypted in (False, True)[:: 1 if turn % 2 == 0 else -1]:
                before = house.spent()
                came = await house.tell(do="talk", count=count, seconds=seconds, encrypted=encrypted)
                used = _used(before, house.spent())
                spent[encrypted].append(used)
                each = " ".join(f"{name} {100 * s / seconds / count:.3f}" for name, s in used.items())
                how = "TLS and SRTP" if encrypted else "in the clear"
                print(
                    f"{how}: % of a core a call: {each}; packets a second {came['mean']:.1f}, "
                    f"fewest {came['fewest']:.1f}",
                    flush=True,
                )
    for name in ("edge", "line", "gateway", "callers"):
        clear, sealed = (statistics.median(one[name] for one in spent[how]) for how in (False, True))
        more = 100 * (sealed - clear) / seconds / count
        print(f"{name}: clear to TLS and SRTP 1 : {sealed / clear:.2f}, {more:+.3f} % of a core a call")


async def measure_setups(count: int, turns: int) -> None:
    """Turn about, each turn with an edge of its own: one remembers requests for 32 s, and so many at most.

    In each a few calls come first that are not counted.
    """
    spent: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(turns):
        async with a_house(4 * ROWS) as house:
            for way in WAYS:
                await house.tell(do="set_up", count=4 * ROWS, way=way)
            for way in WAYS[:: 1 if turn % 2 == 0 else -1]:
                before = house.spent()
                took_s = await house.tell(do="set_up", count=count, way=way)
                used = _used(before, house.spent())
                spent[way].append({name: s / (count // ROWS * ROWS) for name, s in used.items()})
                print(f"{way}: {count / took_s:.0f} a second by the clock", flush=True)
    for way, found in spent.items():
        ms = {name: 1000 * statistics.median(one[name] for one in found) for name in found[0]}
        each = ", ".join(f"{name} {1000 / cost:.0f} ({cost:.2f} ms)" for name, cost in ms.items())
        print(f"{way}: calls begun and ended a second of a core: {each}")


def processor() -> str:
    """Its name, and how busy it is."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else "unknown"
    return f"{len(os.sched_getaffinity(0))} cores of {name}, load {os.getloadavg()[0]:.1f}"


@click.command()
@click.option("--calls", default=20, show_default=True)
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--turns", default=4, show_default=True)
@click.option("--setups", default=200, show_default=True, help="calls that begin and end, each way and turn")
@click.option("--as-edge", "as_edge_with", nargs=4, type=str, default=None, hidden=True)
@click.option("--as-callers", "as_callers_with", nargs=3, type=str, default=None, hidden=True)
def main(
    calls: int,
    seconds: float,
    turns: int,
    setups: int,
    as_edge_with: tuple[str, str, str, str] | None,
    as_callers_with: tuple[str, str, str] | None,
) -> None:
    """What encryption costs both ends of a call, turn about."""
    if as_edge_with is not None:
        port, count, chain, key = as_edge_with
        asyncio.run(as_edge(int(port), int(count), chain, key))
    elif as_callers_with is not None:
        sip_port, tls_port, ca = as_callers_with
        asyncio.run(as_callers(int(sip_port), int(tls_port), ca))
    else:
        print(processor(), flush=True)
        asyncio.run(measure_talk(calls, seconds, turns))
        asyncio.run(measure_setups(setups, turns))
        print(processor())


if __name__ == "__main__":
    main()
