"""What lines for telephones cost: all calls in one process, or in several.

    .venv/bin/python -m benchmarks.phone_lines --calls 40 --processes 1,2 --seconds 10 --turns 2
    .venv/bin/python -m benchmarks.phone_lines --calls 40 --processes 2 --srtp --turns 4

Turn about, each with the same callers (a process of plain sockets: 20 ms of noise, and a click each second)
and the same hall (it says what it hears). It prints the processor time and memory of the line processes
alone, the packets that the callers got, the longest gap between two, and how long a click took both ways.
With `--srtp` each turn is in the clear and then encrypted, or the other way about, and the ratio is printed.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import select
import socket
import statistics
import struct
import sys
import time
from pathlib import Path

import click
from pylibsrtp import Policy, Session

from gateway.config.runtime import Runtime
from gateway.hall.calls.ticks import TickLine
from gateway.ipc import tick
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.srtp_phone import USUAL, SrtpPhone, session

LOUD = bytes((0x00, 0x80)) * 80
"""A click: 20 ms as loud as mu-law can be."""
CLICK_EVERY = 50


class EchoHall(FakeHall):
    """It says what it hears, at once."""

    def _turn(self, lines: list[TickLine]) -> None:
        for line in lines:
            for packet in line.take_waiting():
                said = [slot for slot in packet.slots if len(slot.pcm)]
                line.answer(tick.pack(packet.seq, said))


def callers(count: int, seconds: float, first: int) -> None:
    """The callers' process: says its ports, reads where to send, sends, and prints what came."""
    sockets = []
    for n in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", first + 2 * n))
        sock.setblocking(False)
        sockets.append(sock)
    print(json.dumps([sock.getsockname()[1] for sock in sockets]), flush=True)
    print(json.dumps(talk(sockets, json.loads(sys.stdin.readline()), seconds)), flush=True)


def talk(
    sockets: list[socket.socket], told: list[tuple[int, str, str]], seconds: float
) -> dict[str, list[float]]:
    """Sends and hears for so long, each socket to its port; the keys of both directions are in hex, if any.

    Returns the packets that came and the longest gap for each, and how long clicks took there and back.
    """
    count = len(sockets)
    targets = [("127.0.0.1", port) for port, _, _ in told]
    sealing = [_session(ours, Policy.SSRC_ANY_OUTBOUND) for _, ours, _ in told]
    opening = [_session(theirs, Policy.SSRC_ANY_INBOUND) for _, _, theirs in told]
    chance = random.Random(1)  # noise
    hush = [bytes(chance.choice((0x7E, 0x7F, 0xFE, 0xFF)) for _ in range(160)) for _ in range(16)]
    poll = select.epoll()
    place = {sock.fileno(): n for n, sock in enumerate(sockets)}
    for sock in sockets:
        poll.register(sock, select.EPOLLIN)
    got, last, gaps = [0] * count, [0.0] * count, [0.0] * count
    clicked: list[float] = [0.0] * count
    trips: list[float] = []
    phase = [0.02 * n / count for n in range(count)]
    began = time.monotonic() + 0.05
    queue = sorted((began + phase[n], n, 0) for n in range(count))
    end = began + seconds
    while True:
        now = time.monotonic()
        if now > end:
            break
        while queue[0][0] <= now:
            at, n, number = queue.pop(0)
            loud = number % CLICK_EVERY == n % CLICK_EVERY
            head = struct.pack(">BBHII", 0x80, 0, number & 0xFFFF, number * 160, n + 1)
            if loud:
                clicked[n] = time.monotonic()
            packet = head + (LOUD if loud else hush[number % 16])
            seal = sealing[n]
            sockets[n].sendto(packet if seal is None else seal.protect(packet), targets[n])
            queue.append((at + 0.02, n, number + 1))
        for descriptor, _ in poll.poll(max(0.0, queue[0][0] - time.monotonic())):
            n = place[descriptor]
            data = sockets[n].recv(2048)
            came = time.monotonic()
            if (opens := opening[n]) is not None:
                data = opens.unprotect(data)
            got[n] += 1
            if last[n] and came > began + 2.0:
                gaps[n] = max(gaps[n], came - last[n])
            last[n] = came
            if clicked[n] and data[12:].count(0x00) + data[12:].count(0x80) > 100:
                trips.append(came - clicked[n])
                clicked[n] = 0.0
    return {"got": [*map(float, got)], "gaps": gaps, "trips": trips}


def _session(key: str, ssrc_type: int) -> Session | None:
    """By a key in hex; empty: in the clear."""
    return session(USUAL, bytes.fromhex(key), ssrc_type) if key else None


def spent_s(pids: list[int]) -> float:
    """Processor time of processes, as the scheduler counts it: to the nanosecond.

    The usual counters sample each 10 ms, and what wakes by the clock is always there to be seen.
    """
    return sum(
        int(task.read_text().split()[0]) / 1e9
        for pid in pids
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def held_mb(pids: list[int]) -> float:
    """Memory of processes, shared pages by their share."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


async def measure(
    processes: int, count: int, seconds: float, codec: str, *, encrypted: bool = False
) -> dict[str, float]:
    """One turn with so many processes."""
    with short_folder() as folder:
        runtime = Runtime(folder)
        hall, front = EchoHall(runtime), FakeFront(runtime)
        exchange = RtpExchange(runtime, await front.start(), await hall.start())
        environ = {**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN}
        each = math.ceil(count / processes)
        lines = []
        for n in range(processes):
            argv = [sys.executable, "-m", "gateway.rtp.sip_process", "--number", str(n), "--hall", "hall0"]
            argv += ["--runtime", str(folder), "--narrow", str(each)]
            lines.append(
                await asyncio.create_subprocess_exec(
                    *argv, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
                )
            )
            await front.hears_hello(f"n{n}")
            await hall.hears_hello(f"n{n}")
        pids = [line.pid for line in lines]
        empty_mb = held_mb(pids)
        argv = [sys.executable, "-m", "benchmarks.phone_lines", "--as-callers", str(count), str(seconds)]
        peer = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert peer.stdout is not None  # both are pipes
        assert peer.stdin is not None
        ports = json.loads(await peer.stdout.readline())
        targets = []
        for n, port in enumerate(ports):
            phone = RawPhone(codec=codec)
            if encrypted:
                phone = SrtpPhone(codec=codec, rule="optional")
            await exchange.plugged(phone, f"n{n % processes}")
            phone.rtp_port = port
            phone.invite()
            await hall.hears(CallStarted, phone.call_id)
            await hall.ask(AnswerCall(phone.call_id))
            answer = await phone.final()
            assert answer.status == 200, answer.start  # else there is nothing to measure
            phone.acknowledge()
            await hall.hears(CallConfirmed, phone.call_id)
            assert phone.media is not None  # the answer has an address
            keys = (phone.key.hex(), phone.theirs.hex()) if isinstance(phone, SrtpPhone) else ("", "")
            targets.append((phone.media[1], *keys))
        before, began = spent_s(pids), time.monotonic()
        peer.stdin.write(json.dumps(targets).encode() + b"\n")
        said = json.loads(await peer.stdout.readline())
        await peer.wait()
        took, spent = time.monotonic() - began, spent_s(pids) - before
        full_mb = held_mb(pids)
        await exchange.close()
        for line in lines:
            line.terminate()
            await line.wait()
        trips = sorted(said["trips"])
        return {
            "percent_of_a_core_a_call": 100 * spent / took / count,
            "mb_empty": empty_mb,
            "mb_a_call": (full_mb - empty_mb) / count,
            "mb_full": full_mb,
            "packets_a_second": statistics.mean(said["got"]) / seconds,
            "fewest": min(said["got"]) / seconds,
            "longest_gap_ms": 1000 * max(said["gaps"]),
            "median_gap_ms": 1000 * statistics.median(said["gaps"]),
            "there_and_back_ms": 1000 * statistics.median(trips) if trips else float("nan"),
            "there_and_back_p95_ms": 1000 * trips[int(0.95 * len(trips))] if trips else float("nan"),
        }


@click.command()
@click.option("--calls", default=40, show_default=True)
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--turns", default=2, show_default=True)
@click.option("--codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option("--processes", default="1,2", show_default=True, help="how many, turn about")
@click.option("--srtp", is_flag=True, help="each turn in the clear, and encrypted")
@click.option("--as-callers", nargs=2, type=float, default=None, hidden=True)
def main(
    calls: int,
    seconds: float,
    turns: int,
    codec: str,
    processes: str,
    srtp: bool,
    as_callers: tuple[float, float] | None,
) -> None:
    """What lines for telephones cost, turn about."""
    if as_callers is not None:
        callers(int(as_callers[0]), as_callers[1], 50_000)
        return
    spent: dict[bool, list[float]] = {False: [], True: []}
    kinds = [(int(one), how) for one in processes.split(",") for how in ((False, True) if srtp else (False,))]
    for turn in range(turns):
        for several, encrypted in kinds[:: 1 if turn % 2 == 0 else -1]:
            found = asyncio.run(measure(several, calls, seconds, codec, encrypted=encrypted))
            spent[encrypted].append(found["percent_of_a_core_a_call"])
            print(
                several,
                "processes, SRTP," if encrypted else "processes,",
                " ".join(f"{name} {value:.3g}" for name, value in found.items()),
                flush=True,
            )
    if srtp:
        clear, sealed = (statistics.median(spent[encrypted]) for encrypted in (False, True))
        print(f"clear to SRTP 1 : {sealed / clear:.2f}, {sealed - clear:.3f} % of a core a call more")


if __name__ == "__main__":
    main()
