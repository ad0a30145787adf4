"""A process that has telephones' calls; the supervisor starts it, two of them at least.

It holds two lines, one for calls at 8 kHz and one for those at 16: so two processes are enough for a host,
and half of the calls go on when one of them dies. It knows no settings, whose library is 8 MB.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Literal

import click

from gateway.config.runtime import Runtime
from gateway.errors import LineError, VoicegateError
from gateway.rtp.line_plan import PORTS_A_CALL, LinePlan
from gateway.rtp.payloads import g722
from gateway.rtp.rtp_line import RtpLine
from model import heap, json_log
from model.tasks import watch_loop


async def run(plans: list[LinePlan]) -> None:
    """Serves until SIGTERM, with every call ended then. Raises `LineError` when a line cannot begin."""
    lines = [RtpLine(plan) for plan in plans]

    def stop() -> None:
        for line in lines:
            line.stop()

    watch_loop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    heap.settle()
    try:
        async with asyncio.TaskGroup() as running:
            for line in lines:
                running.create_task(line.run())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


@click.command()
@click.option("--number", required=True, type=click.IntRange(0), help="of this process among its like")
@click.option("--hall", required=True, help="the hall that has its calls, such as hall0")
@click.option("--runtime", "runtime_dir", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--narrow", default=0, type=click.IntRange(0, 255), help="calls at 8 kHz that it takes")
@click.option("--wide", default=0, type=click.IntRange(0, 100), help="calls at 16 kHz that it takes")
@click.option("--rtp-port", default=0, help="the first of its ports; 0: random blocks")
@click.option("--media-address", default="127.0.0.1", show_default=True, help="where RTP is bound")
@click.option("--rtp-timeout", "rtp_timeout_s", default=0.0, help="seconds until a silent caller is gone")
def main(
    number: int,
    hall: str,
    runtime_dir: Path,
    narrow: int,
    wide: int,
    rtp_port: int,
    media_address: str,
    rtp_timeout_s: float,
) -> None:
    """One process of lines for telephones; the supervisor starts it."""
    name = f"sip{number}"
    try:
        json_log.configure(name)
        runtime = Runtime(runtime_dir)
        token = os.environ.get("VOICEGATE_BOOT_TOKEN") or runtime.token()

        def plan(kind: Literal["narrow", "wide"], calls: int, before: int) -> LinePlan:
            return LinePlan(
                name=f"{kind[0]}{number}",
                kind=kind,
                hall=hall,
                runtime=runtime,
                token=token,
                capacity=calls,
                process=name,
                rtp_port=rtp_port + PORTS_A_CALL * before if rtp_port else 0,
                media_address=media_address,
                rtp_timeout_s=rtp_timeout_s,
            )

        plans = [one for one in (plan("narrow", narrow, 0), plan("wide", wide, narrow)) if one.capacity]
        if not plans:
            raise LineError("it is to take no calls: --narrow or --wide says how many")
        if wide:
            g722.load()
        asyncio.run(run(plans))
    except VoicegateError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
