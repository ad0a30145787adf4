"""What Serve's proxy adds to a frame: one pacing WebSocket through the proxy and on the replica's own port.

    python -m deploy.ray.latency --calls 1,16,64

Each call is sent a frame of 80 ms (3,844 bytes) every 80 ms; a frame carries the clock of its sending. Ends
with the table: a frame's delay, and the processor time of proxy and replica together, per call.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

import click
import numpy as np
import ray
import uvicorn
from ray import serve
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

FRAME_S = 0.08
CLOCK = ">d"
SOUND = bytes(3_836)


async def pace(websocket: WebSocket) -> None:
    """Sends frames at their time until the client goes."""
    await websocket.accept()
    due = time.monotonic()
    try:
        while True:
            due += FRAME_S
            await asyncio.sleep(due - time.monotonic())
            await websocket.send_bytes(struct.pack(CLOCK, time.monotonic()) + SOUND)
    except (WebSocketDisconnect, RuntimeError):  # the client is gone
        pass


app = Starlette(routes=[WebSocketRoute("/pace", pace)])


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Pacer:
    """Listens on a port of its own beside Serve's."""

    def __init__(self, port: int) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="websockets-sansio")
        self._serving = asyncio.get_running_loop().create_task(uvicorn.Server(config).serve())


async def call(url: str, until: float, delays: list[float]) -> None:
    """One client: notes the delay of every frame after the first second."""
    async with connect(url, compression=None, proxy=None) as ws:
        settled = time.monotonic() + 1.0
        while time.monotonic() < until:
            frame = await ws.recv(decode=False)
            now = time.monotonic()
            if now > settled:
                delays.append(now - struct.unpack_from(CLOCK, frame)[0])


def busy_s() -> float:
    """Processor seconds of Serve's proxy and replica so far."""
    total = 0.0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                name = file.read()
            if name.startswith((b"ray::ServeReplica", b"ray::ProxyActor")):
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return total


async def measure(url: str, calls: int, seconds: float) -> tuple[np.ndarray, float]:
    delays: list[float] = []
    before, until = busy_s(), time.monotonic() + seconds
    await asyncio.gather(*(call(url, until, delays) for _ in range(calls)))
    return np.array(delays) * 1000, (busy_s() - before) / seconds / calls


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@click.command()
@click.option("--calls", default="1,16,64", help="calls at once, a table row for each")
@click.option("--seconds", default=10.0, help="length of each measurement")
def main(calls: str, seconds: float) -> None:
    """Measures both ways on a cluster of this process's own."""
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    own, proxy = free_port(), free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": proxy})
    serve.run(Pacer.bind(own))
    ways = {"proxy": f"ws://127.0.0.1:{proxy}/pace", "direct": f"ws://127.0.0.1:{own}/pace"}
    click.echo("calls  way      p50 ms   p95 ms   p99 ms   frames   core %/call")
    for count in map(int, calls.split(",")):
        for way, url in ways.items():
            delays, share = asyncio.run(measure(url, count, seconds))
            p50, p95, p99 = np.percentile(delays, (50, 95, 99))
            row = f"{count:5d}  {way:7s} {p50:7.2f}  {p95:7.2f}  {p99:7.2f}  {len(delays):7d}"
            click.echo(f"{row}  {share * 100:9.2f}")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
