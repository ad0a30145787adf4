"""A fuzzer for the SIP that anybody may send us: the parser and the whole edge behind a UDP port.

    python -m benchmarks.edge_fuzz --datagrams 100000 --seed 1

Datagrams are changed from real ones (RFC 4475's torture messages, requests of a telephone, requests within a
call that is up) and sent over loopback to an edge with a line. Meanwhile another call, of which the fuzzer
knows nothing, is held and resumed. After every batch a sound OPTIONS must be answered; at the end the edge
keeps no more at rest than after the first tenth. An error of ours inside the edge counts as a fall.

Time is the house's (`tests/house_time.py`): what is kept for 32 s is forgotten at once when all is quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import structlog

from gateway.edge.dialogs.dialog import Dialog
from gateway.edge.dialogs.transaction import LINGER_S, Sent, Served
from gateway.edge.proxy.lines import LineInfo
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, DTMF, KEY_5, OFFER, Caller, Line, Said
from tests.house_time import HouseLoop

TORTURE: Final = Path(__file__).parents[1] / "tests" / "gateway" / "edge" / "grammar" / "rfc4475"
BATCH: Final = 50
BATCHES_A_HOLD: Final = 100
"""Batches between two re-INVITEs of the call that is up."""
TENTHS: Final = 10
REST_S: Final = 2 * LINGER_S + 120
"""Seconds of the house's clock after which the edge remembers nothing that came."""
GROWTH: Final = 2000
"""Objects that may be more after the last tenth than after the first: caches that fill."""
WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"\x00", b"\t", b" ", b";", b",", b":", b"<", b">", b'"', b"\\", b"%", b"%00",
    b"=", b"@", b"sip:", b"sips:", b"tel:", b"SIP/2.0", b"SIP/2.0/UDP", b"z9hG4bK", b";lr", b";tag=",
    b";branch=", b";rport", b";received=", b";maddr=127.0.0.1", b";transport=tcp", b"[::1]", b"127.0.0.1",
    b"-1", b"0", b"4294967296", b"99999999999999999999", b"\xff\xfe", b"\xc3(", b"*", b"Content-Length: 0",
    b"Content-Length: 99999", b"Route: <sip:127.0.0.1;lr>", b"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx",
    b"Contact: *", b"Expires: 0", b"Require: 100rel", b"Replaces: x;to-tag=y;from-tag=z",
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:", b"m=audio 0 RTP/AVP 0", b"c=IN IP6 ::",
    b"a=rtpmap:0 PCMU/8000", b"multipart/mixed;boundary=x", b"INVITE ", b"ACK ", b"BYE ", b"CANCEL ",
    b"REGISTER ", b"PRACK ", b"UPDATE ", b"REFER ", b"SUBSCRIBE ", b"MESSAGE ",
)  # fmt: skip


class Mutator:
    """Changes datagrams: the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def change(self, seeds: list[bytes]) -> bytes:
        """One to six changes of one of `seeds`, mostly one; at most what fits into a datagram."""
        rng = self.random
        data = bytearray(rng.choice(seeds))
        if rng.random() < 0.5:  # of another call, in another transaction
            fresh = b"%010x" % rng.randrange(1 << 40)
            for name in (b"Call-ID: ", b"branch=z9hG4bK"):
                data = data.replace(name, name + fresh)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            at = rng.randrange(len(data) + 1)
            way = rng.randrange(9)
            if way == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif way == 1:
                del data[at : at + rng.randint(1, 40)]
            elif way == 2:
                data[at:at] = rng.choice(WORDS)
            elif way == 3:
                data[at:at] = data[at : at + rng.randint(1, 200)]
            elif way == 4:
                data[at:at] = bytes([rng.randrange(256)]) * rng.randint(1, 300)
            elif way == 5:  # a line again, elsewhere, or gone
                lines = bytes(data).split(b"\r\n")
                line = rng.choice(lines)
                if rng.random() < 0.5:
                    lines.remove(line)
                else:
                    lines.insert(rng.randrange(len(lines) + 1), line)
                data = bytearray(b"\r\n".join(lines))
            elif way == 6:  # the head of one with the rest of another
                other = rng.choice(seeds)
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            elif way == 7:  # another number
                digits = [n for n, byte in enumerate(data) if 0x30 <= byte <= 0x39]
                if digits:
                    where = rng.choice(digits)
                    data[where : where + 1] = rng.choice((b"", b"-", b"0" * 40, b"9" * 12, b"65536"))
            else:
                data[at:] = b""
        return bytes(data[:60_000]) or b"\0"


class BusyLine(Line):
    """Takes what comes as a line would: some calls, not others, and every BYE."""

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name)
        self._rng = rng
        self.took = Counter[str]()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.edge = addr
        said = Said.parse(data)
        self.kept.clear()
        if said.status or said.method == "ACK":
            return
        self.took[said.method] += 1
        if said.method == "INVITE":
            self.invite = said
            self.reply(said, 100)
            status = self._rng.choice((200, 200, 486, 180))
            self.reply(said, status, body=ANSWER if status == 200 else "")
        else:
            self.reply(said, 200)


@dataclass
class Fuzzed:
    """What came of it. `fell`: names of the errors of ours, of which there must be none."""

    datagrams: int = 0
    pings: int = 0
    holds: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    line_took: Counter[str] = field(default_factory=Counter)
    fell: list[str] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    """Python's, at rest after each tenth"""
    kept: list[int] = field(default_factory=list)
    """transactions and dialogs, at the same moments"""

    @property
    def growth(self) -> int:
        return self.objects[-1] - self.objects[0] if self.objects else 0

    @property
    def sound(self) -> bool:
        return not self.fell and self.growth <= GROWTH and len(set(self.kept)) <= 1

    def as_json(self) -> dict[str, Any]:
        counts = {"statuses": dict(self.statuses), "line_took": dict(self.line_took)}  # not by `asdict`
        return {**dataclasses.asdict(self), **counts, "growth": self.growth, "sound": self.sound}


class FuzzRun:
    """One run over an exchange of its own."""

    def __init__(self, seed: int) -> None:
        self.found = Fuzzed()
        self._mutator = Mutator(seed)
        self._exchange = Exchange()

    async def run(self, datagrams: int) -> Fuzzed:
        exchange, found = self._exchange, self.found
        edge = await exchange.edge(invites_per_s=1e9)
        busy = await BusyLine("n1", self._mutator.random).open()
        exchange.peers.append(busy)
        line = await exchange.line("n0", capacity=1)
        watched = await exchange.caller()
        await exchange.call(watched, line)
        info = LineInfo(busy.name, "narrow", busy.port, 64, hall="hall0")
        self._sender, self._pinger = await exchange.caller(), await exchange.caller()
        self._victim = await exchange.caller()
        seeds = [path.read_bytes() for path in sorted(TORTURE.iterdir())] + self._of_a_phone()
        each = max(1, datagrams // TENTHS // BATCH)
        for _ in range(TENTHS):
            edge.line_up(info)
            of_a_call = await self._of_a_call()
            for batch in range(each):
                for _ in range(BATCH):
                    self._sender.write(self._mutator.change(seeds + of_a_call))
                found.datagrams += BATCH
                await self._ping()
                if batch % BATCHES_A_HOLD == 0:
                    await self._hold(watched, line)
            edge.line_down(busy.name)  # calls that nobody hung up
            await asyncio.sleep(REST_S)
            self._tidy()
            self._note()
        watched.send("BYE")
        line.reply(await line.next(method="BYE"), 200)
        await watched.next(200)
        found.line_took = busy.took
        await exchange.close()
        return found

    def _of_a_phone(self) -> list[bytes]:
        """Requests out of a dialog, and responses that nobody waits for."""
        phone = self._sender
        others = ["OPTIONS", "REGISTER", "CANCEL", "ACK", "BYE", "SUBSCRIBE", "MESSAGE", "REFER", "PUBLISH"]
        texts = [phone.text("INVITE", OFFER), *(phone.text(method) for method in others)]
        answer = phone.text("OPTIONS").split("\r\n", 1)[1]
        texts += [f"SIP/2.0 {status}\r\n{answer}" for status in ("200 OK", "401 Unauthorized")]
        return [text.encode() for text in texts]

    async def _of_a_call(self) -> list[bytes]:
        """Requests within a call that is up, and that the fuzzer may end."""
        phone = self._victim
        phone.call_id, phone.to, phone.routes = secrets.token_hex(8), "<sip:demo@127.0.0.1>", []
        phone.kept.clear()
        phone.send("INVITE", OFFER)
        with contextlib.suppress(TimeoutError):  # the line said no
            phone.learn(await phone.next(200))
        hold = OFFER.replace("m=audio", "a=sendonly\r\nm=audio")
        asked = (
            ("ACK",), ("INVITE", hold), ("UPDATE", hold), ("INFO", KEY_5, DTMF), ("OPTIONS",),
            ("PRACK", "", "RAck: 1 1 INVITE"), ("REFER", "", "Refer-To: <sip:x@y>"),
            ("NOTIFY", "", "Event: refer"), ("BYE",),
        )  # fmt: skip
        return [phone.text(*one).encode() for one in asked]

    async def _ping(self) -> None:
        """The edge lives, and has read all that was sent before."""
        pinger = self._pinger
        pinger.send("OPTIONS")
        await pinger.next(200, within_s=30)
        self.found.pings += 1
        for said in self._sender.kept:
            self.found.statuses[said.start.split()[1] if said.status else said.start.split()[0]] += 1
        self._sender.kept.clear()
        pinger.kept.clear()

    async def _hold(self, watched: Caller, line: Line) -> None:
        """The call that is up goes on: a re-INVITE, answered by its line."""
        watched.send("INVITE", OFFER)
        line.reply(await line.next(method="INVITE", within_s=30), 200, body=ANSWER)
        await watched.next(200, within_s=30)
        watched.send("ACK")
        await line.next(method="ACK", within_s=30)
        watched.kept.clear()
        self.found.holds += 1

    def _tidy(self) -> None:
        """What the test's own peers remember is not the edge's."""
        desk = self._exchange.desk
        for kept in (desk.calls, desk.endings, desk.refusals, self._sender.kept, self._pinger.kept):
            kept.clear()

    def _note(self) -> None:
        gc.collect()
        gc.collect()
        self.found.objects.append(sys.getallocatedblocks())
        self.found.kept.append(sum(type(one) in (Served, Sent, Dialog) for one in gc.get_objects()))


@contextlib.contextmanager
def _falls(fell: list[str]) -> Iterator[None]:
    """Notes the edge's own errors, and keeps all else that it logs to itself."""

    def note(_: object, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        if method in ("exception", "error", "critical"):
            fell.append(f"{event['event']}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


def fuzz(datagrams: int, seed: int) -> Fuzzed:
    """Sends `datagrams` of them; one seed always sends the same ones."""
    one = FuzzRun(seed)
    with _falls(one.found.fell), asyncio.Runner(loop_factory=HouseLoop) as runner:
        return runner.run(one.run(datagrams))


@click.command()
@click.option("--datagrams", default=100_000, show_default=True, type=click.IntRange(500))
@click.option("--seed", default=1, show_default=True)
def main(datagrams: int, seed: int) -> None:
    began = time.monotonic()
    found = fuzz(datagrams, seed)
    click.echo(
        f"{found.datagrams:,} datagrams in {time.monotonic() - began:.0f} s: {len(found.fell)} errors of "
        f"ours, {found.pings} pings answered, {found.holds} re-INVITEs of the call beside; at rest "
        f"{found.growth:+} objects"
    )
    click.echo(f"answered: {dict(found.statuses.most_common())}")
    click.echo(f"reached the line: {dict(found.line_took.most_common())}")
    for error in sorted(set(found.fell)):
        click.echo(error)
    raise SystemExit(not found.sound)


if __name__ == "__main__":
    main()
