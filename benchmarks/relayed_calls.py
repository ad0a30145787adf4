"""What a caller who was handed over costs, and how late the two hear each other for it.

    .venv/bin/python -m benchmarks.relayed_calls --calls 10 --seconds 10 --turns 2
    .venv/bin/python -m benchmarks.relayed_calls --calls 10 --seconds 10 --turns 2 --target-codec PCMA

A line's process joins each caller with its target, as `transfer` does; callers and targets are plain sockets
of one other process, which send 20 ms of noise and a click each second. Samples in, samples out: the delay is
from the click's first sample in what was sent to its first sample in what comes at the other end, so that a
phone's own packet of 20 ms does not count, nor its jitter buffer. Processor time is the line process's alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import select
import socket
import statistics
import struct
import sys
import time

import click
import numpy as np

from benchmarks.phone_lines import CLICK_EVERY, EchoHall, held_mb, spent_s
from gateway.config.runtime import Runtime
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted, CallTarget, TransferOutcome
from gateway.rtp.payloads import g711
from gateway.rtp.payloads.g711 import Law
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import TOKEN, FakeFront
from tests.gateway.line.rawphone import Coder, RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange

FIRST_PORT = 50_000
LOUD_FROM = 8_000
"""A sample (int16) that is louder than this is part of a click."""
SPARE = 2
"""Calls of the line that are not placed: somebody else may have one of its ports."""
SETTLED_S = 2.0
"""What is heard before says nothing: jitter buffers find their depth."""


def ends(count: int, seconds: float, laws: tuple[Law, Law]) -> None:
    """Both ends of all calls, callers and targets in turn: reads where to send, and prints what came."""
    coders = [(law, Coder(law).payload_type) for law in laws]
    sockets = []
    for n in range(2 * count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", FIRST_PORT + 2 * n))
        sock.setblocking(False)
        sockets.append(sock)
    print("bound", flush=True)
    targets = [("127.0.0.1", port) for port in json.loads(sys.stdin.readline())]
    chance = np.random.default_rng(1)
    click_at = [chance.integers(0, 160) for _ in sockets]
    quiet, loud = [], []
    for n in range(2 * count):
        law = coders[n % 2][0]
        noise = chance.normal(0, 60, (16, 160)).astype(np.int16)
        quiet.append([g711.encode(law, row.tobytes()) for row in noise])
        peak = noise[0].copy()
        peak[click_at[n] :] = 24_000
        loud.append(g711.encode(law, peak.tobytes()))
    poll, place = select.epoll(), {sock.fileno(): n for n, sock in enumerate(sockets)}
    for sock in sockets:
        poll.register(sock, select.EPOLLIN)
    began = time.monotonic() + 0.05
    turns = random.Random(1)  # when each begins to speak within its 20 ms
    queue = sorted((began + turns.uniform(0, 0.02), n, 0) for n in range(2 * count))
    said_at: list[float] = [0.0] * len(sockets)
    got, delays, end = [0] * len(sockets), [], began + seconds
    while (now := time.monotonic()) < end:
        while queue[0][0] <= now:
            at, n, number = queue.pop(0)
            clicks = number % CLICK_EVERY == n % CLICK_EVERY
            head = struct.pack(">BBHII", 0x80, coders[n % 2][1], number & 0xFFFF, number * 160, n + 1)
            if clicks:
                said_at[n] = time.monotonic() + click_at[n] / 8000
            sockets[n].sendto(head + (loud[n] if clicks else quiet[n][number % 16]), targets[n])
            queue.append((at + 0.02, n, number + 1))
        for descriptor, _ in poll.poll(max(0.0, queue[0][0] - time.monotonic())):
            n = place[descriptor]
            data, came = sockets[n].recv(2048), time.monotonic()
            got[n] += 1
            mate = n ^ 1
            if not said_at[mate] or len(data) < 172:
                continue
            heard = np.abs(g711.decode(coders[n % 2][0], data[12:]).reshape(-1).astype(np.int32))
            if heard.max() >= LOUD_FROM:
                delay_s = came + int(np.argmax(heard >= LOUD_FROM)) / 8000 - said_at[mate]
                said_at[mate] = 0.0
                if came > began + SETTLED_S:
                    delays.append(delay_s)
    print(json.dumps({"got": got, "delays": delays}), flush=True)


async def measure(count: int, seconds: float, codec: Law, target_codec: Law) -> dict[str, float]:
    """So many callers, each with its target."""
    with short_folder() as folder:
        runtime = Runtime(folder)
        hall, front = EchoHall(runtime), FakeFront(runtime)
        exchange = RtpExchange(runtime, await front.start(), await hall.start())
        argv = [sys.executable, "-m", "gateway.rtp.sip_process", "--number", "0", "--hall", "hall0"]
        argv += ["--runtime", str(folder), "--narrow", str(count + SPARE)]
        nowhere = asyncio.subprocess.DEVNULL
        environ = {**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN}
        line = await asyncio.create_subprocess_exec(*argv, env=environ, stdout=nowhere, stderr=nowhere)
        await front.hears_hello("n0")
        await hall.hears_hello("n0")
        argv = [sys.executable, "-m", "benchmarks.relayed_calls", "--calls", str(count)]
        argv += ["--seconds", str(seconds), "--codec", codec, "--target-codec", target_codec, "--as-ends"]
        pipe = asyncio.subprocess.PIPE
        peer = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        assert peer.stdout is not None  # both are pipes
        assert peer.stdin is not None
        await peer.stdout.readline()
        places: list[int] = []
        for n in range(count):
            places += await _handed_over(exchange, hall, FIRST_PORT + 4 * n, codec, target_codec)
        before, began = spent_s([line.pid]), time.monotonic()
        peer.stdin.write(json.dumps(places).encode() + b"\n")
        said = json.loads(await peer.stdout.readline())
        await peer.wait()
        took, spent = time.monotonic() - began, spent_s([line.pid]) - before
        full_mb = held_mb([line.pid])
        await exchange.close()
        line.terminate()
        await line.wait()
        p50, p95 = np.percentile(said["delays"], [50, 95])
        return {
            "percent_of_a_core_a_relayed_call": 100 * spent / took / count,
            "delay_p50_ms": 1000 * float(p50),
            "delay_p95_ms": 1000 * float(p95),
            "clicks": len(said["delays"]),
            "packets_a_second": statistics.mean(said["got"]) / seconds,
            "fewest": min(said["got"]) / seconds,
            "mb": full_mb,
        }


async def _handed_over(
    exchange: RtpExchange, hall: EchoHall, port: int, codec: Law, target_codec: Law
) -> list[int]:
    """The line's ports for a caller at `port`, and for its target two ports above."""
    phone = RawPhone(codec=codec)
    await exchange.plugged(phone, "n0")
    phone.rtp_port = port
    phone.invite()
    await hall.hears(CallStarted, phone.call_id)
    await hall.ask(AnswerCall(phone.call_id))
    await phone.final()
    phone.acknowledge()
    await hall.hears(CallConfirmed, phone.call_id)
    await hall.ask(CallTarget(phone.call_id, "office", 30.0))
    invite = await phone.request("INVITE")
    there = re.search(r"m=audio (\d+)", invite.body)
    assert there is not None  # offers sound
    assert phone.media is not None
    phone.use(target_codec)
    phone.rtp_port = port + 2
    phone.answer(invite, body=phone.offer())
    outcome = await hall.hears(TransferOutcome, phone.call_id)
    assert outcome.status == 200, outcome.reason  # else there is nothing to measure
    return [phone.media[1], int(there[1])]


@click.command()
@click.option("--calls", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--seconds", type=click.FloatRange(4, 600), default=10.0, show_default=True)
@click.option("--turns", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option("--target-codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option("--as-ends", is_flag=True, hidden=True)
def main(calls: int, seconds: float, turns: int, codec: Law, target_codec: Law, as_ends: bool) -> None:
    """What a relayed call costs, and how late it is heard."""
    if as_ends:
        ends(calls, seconds, (codec, target_codec))
        return
    for _ in range(turns):
        found = asyncio.run(measure(calls, seconds, codec, target_codec))
        print(" ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
