"""A fuzzer for the SIP that anybody may send us: the parser and the whole edge behind a UDP port.

    python -m benchmarks.edge_fuzz --datagrams 100000 --seed 1

Datagrams are changed from real ones (RFC 4475's torture messages, requests of a telephone, requests within a
call that is up, REGISTERs with the right password and without, a trunk's calls) and sent over loopback to an
edge with lines, a registrar and a trunk. A line has its caller handed to the trunk and to the telephones that
registered, and these answer rudely: challenges, redirections, several finals, requests within the dialog.
Meanwhile another call, of which the fuzzer knows nothing, is held and resumed. After every batch a sound
OPTIONS must be answered; at the end the edge keeps no more at rest than after the first tenth. An error of
ours inside the edge counts as a fall.

Time is the house's (`tests/house_time.py`): what is kept for 32 s is forgotten at once when all is quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
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

from benchmarks.fuzz_peers import BusyLine, DialingLine, Mutator, RudePeer
from gateway.edge.dialogs.dialog import Dialog
from gateway.edge.dialogs.transaction import LINGER_S, Sent, Served
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.trunks.out_branch import OutBranch
from gateway.edge.trunks.out_call import OutCall
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, DTMF, KEY_5, OFFER, Caller, Line
from tests.gateway.edge.registrar.phones import Shelf, ha1
from tests.house_time import HouseLoop

TORTURE: Final = Path(__file__).parents[1] / "tests" / "gateway" / "edge" / "grammar" / "rfc4475"
BATCH: Final = 50
BATCHES_A_HOLD: Final = 100
"""Batches between two re-INVITEs of the call that is up."""
BATCHES_A_PAUSE: Final = 25
"""Batches after which what they left is forgotten: tables of the edge have an end, and a flood fills them."""
BATCHES_A_REGISTRATION: Final = 10
"""Batches between two REGISTERs of the edge's to its trunk."""
KERNEL_S: Final = 0.2
"""In which a busy machine carries a datagram over loopback."""
TENTHS: Final = 10
REGISTERS: Final = 6
"""How many datagrams of a batch are REGISTERs."""
TRUNK_HOST: Final = "127.0.0.3"
NUMBER: Final = "+4930123"
REST_S: Final = 2 * LINGER_S + 120
"""Seconds of the house's clock after which the edge remembers nothing that came."""
GROWTH: Final = 2000
"""Objects that may be more after the last tenth than after the first: caches that fill."""


@dataclass
class Fuzzed:
    """What came of it. `fell`: names of the errors of ours, of which there must be none."""

    datagrams: int = 0
    pings: int = 0
    holds: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    line_took: Counter[str] = field(default_factory=Counter)
    registered: int = 0
    """REGISTERs that were answered 200"""
    left: Counter[str] = field(default_factory=Counter)
    """requests of the edge's own to the trunk and to telephones"""
    targets: Counter[int] = field(default_factory=Counter)
    """what the line heard of those who were called"""
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
        counts = {"statuses": dict(self.statuses), "line_took": dict(self.line_took), "left": dict(self.left)}
        counts |= {"targets": {str(status): count for status, count in self.targets.items()}}
        return {**dataclasses.asdict(self), **counts, "growth": self.growth, "sound": self.sound}


def _trunk(port: int) -> Trunk:
    """One that takes what the fuzzer has, as often as it has it."""
    return Trunk(
        name="carrier", hosts=(TrunkHost(TRUNK_HOST, port),), user="u", password="p", register=True,
        numbers=(NUMBER,), prefixes=("+49",), calls=1000, per_minute=100_000, ping_s=5,
    )  # fmt: skip


class FuzzRun:
    """One run over an exchange of its own."""

    def __init__(self, seed: int) -> None:
        self.found = Fuzzed()
        self._mutator = Mutator(seed)
        self._exchange = Exchange()

    async def run(self, datagrams: int) -> Fuzzed:
        exchange, found, rng = self._exchange, self.found, self._mutator.random
        exchange.shelf = Shelf()
        exchange.desk.targets = {"office": f"trunk:carrier/{NUMBER}", "home": "user:alice"}
        carrier = RudePeer(0, self._mutator, TRUNK_HOST)
        phone = RudePeer(0, self._mutator, "127.0.0.1")
        exchange.peers += [await carrier.open(), await phone.open()]
        exchange.trunks = (_trunk(carrier.port),)
        edge = await exchange.edge(invites_per_s=1e9, phones=ha1, qualify_s=0.5)
        carrier.edge = phone.edge = ("127.0.0.1", edge.port)
        busy = await BusyLine("n1", rng).open()
        line = await DialingLine("n0", rng).open()
        exchange.peers += [busy, line]
        edge.line_up(LineInfo(line.name, "narrow", line.port, 1, hall="hall0"))
        watched = await exchange.caller()
        await exchange.call(watched, line)
        (dialog,) = edge._board.dialogs
        info = LineInfo(busy.name, "narrow", busy.port, 256, hall="hall0")
        self._sender, self._pinger = await exchange.caller(), await exchange.caller()
        self._victim = await exchange.caller()
        seeds = [path.read_bytes() for path in sorted(TORTURE.iterdir())] + self._of_a_phone()
        each = max(1, datagrams // TENTHS // BATCH)
        for _ in range(TENTHS):
            edge.line_up(info)
            tasks = [asyncio.ensure_future(edge.trunks.look_after())]
            if edge.qualify is not None:
                tasks.append(asyncio.ensure_future(edge.qualify.look_after()))
            of_a_call = await self._of_a_call()
            for batch in range(each):
                said = carrier.said + phone.said
                line.dial(dialog.token.call_id, rng.choice(("office", "home")))
                for _ in range(REGISTERS):
                    phone.rudely(phone.register())
                carrier.rudely(carrier.invite())
                for _ in range(BATCH - REGISTERS - 1):
                    self._sender.write(self._mutator.change(seeds + of_a_call))
                found.datagrams += BATCH - REGISTERS - 1
                if batch % BATCHES_A_REGISTRATION == 0:  # by its own clock it seldom would
                    exchange._spawn(edge.trunks.registrations["carrier"].renew())
                await self._ping()
                found.datagrams += carrier.said + phone.said - said
                if (
                    batch % BATCHES_A_PAUSE == BATCHES_A_PAUSE - 1
                ):  # the house's clock stands while there is work
                    await asyncio.sleep(LINGER_S)
                if batch % BATCHES_A_HOLD == 0:
                    await self._hold(watched, line)
            while tasks:
                tasks.pop().cancel()
            line.give_up()
            edge.line_down(busy.name)  # calls that nobody hung up
            await asyncio.sleep(REST_S)
            if edge.registrar is not None:
                await edge.registrar.tidy()
            line.forget()
            self._tidy()
            self._note()
        found.line_took, found.registered, found.targets = busy.took, phone.registered, line.finals
        found.left = carrier.took + phone.took
        watched.send("BYE")
        time.sleep(KERNEL_S)  # noqa: ASYNC251  # all is quiet, so that the house's clock would not wait
        line.reply(await line.next(method="BYE"), 200)
        time.sleep(KERNEL_S)  # noqa: ASYNC251
        await watched.next(200)
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
        kept = (Served, Sent, Dialog, OutCall, OutBranch)
        self.found.kept.append(sum(type(one) in kept for one in gc.get_objects()))


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
        try:
            return runner.run(one.run(datagrams))
        except TimeoutError:
            one.found.fell.append(f"no answer in time after {one.found.datagrams:,} datagrams")
            return one.found


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
    left = dict(found.left.most_common())
    click.echo(f"{found.registered:,} registrations; the edge asked trunk and telephones: {left}")
    click.echo(f"of who was called the line heard: {dict(found.targets.most_common())}")
    for error in sorted(set(found.fell)):
        click.echo(error)
    raise SystemExit(not found.sound)


if __name__ == "__main__":
    main()
