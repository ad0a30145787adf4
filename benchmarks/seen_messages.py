"""What it costs that each SIP message of a call is seen, blanked and handed to the pen of its ladder.

    .venv/bin/python -m benchmarks.seen_messages --calls 300 --turns 5

One process has an edge, a line and a caller, so its processor time is all of theirs; turn about the edge's
messages are seen and not. Calls begin and end at once, with six messages each. Writing to Redis is not in it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import time

import click
import structlog

from gateway.front.calls.call_ladder import CallLadder
from gateway.store.living_calls import LivingCalls
from gateway.store.session_writer import Writer
from gateway.store.sessions import Sessions
from tests.gateway.edge.conftest import Exchange

MESSAGES = 6


class _Unwritten:
    """In the place of the writer to Redis."""

    def put(self, commands: object, *, important: bool = False) -> None:
        """Takes it."""


class _UnwrittenSessions(Sessions):
    """Sessions whose writes go nowhere."""

    def __init__(self) -> None:
        writer: Writer = _Unwritten()  # type: ignore[assignment]  # what pens use of it
        self._living = LivingCalls(writer, 86_400.0)


async def spent_us(calls: int, *, seen: bool) -> float:
    """Microseconds of processor time a call."""
    ladder = CallLadder(_UnwrittenSessions())
    exchange = Exchange()
    await exchange.edge(on_wire=ladder.seen if seen else None, invites_per_s=1e6)
    line, caller = await exchange.line(capacity=calls + 4), await exchange.caller()
    gc.collect()
    began = time.process_time()
    for _ in range(calls):
        caller.call_id, caller.own_tag, caller.cseq = secrets.token_hex(8), secrets.token_hex(4), 0
        caller.to, caller.target, caller.routes = "<sip:demo@127.0.0.1>", "sip:demo@127.0.0.1", []
        caller.kept.clear()
        await exchange.call(caller, line)
        caller.send("BYE")
        line.reply(await line.next(method="BYE"), 200)
        await caller.next(200, "BYE")
    spent = time.process_time() - began
    await exchange.close()
    return spent / calls * 1e6


@click.command()
@click.option("--calls", default=300, show_default=True, help="Of each turn.")
@click.option("--turns", default=5, show_default=True, help="Of each kind; the quickest counts.")
def main(calls: int, turns: int) -> None:
    """Prints both, and what a message costs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns):
        for seen in found:
            found[seen].append(asyncio.run(spent_us(calls, seen=seen)))
    without, seen_us = min(found[False]), min(found[True])
    click.echo(
        f"unseen {without:.0f} us a call, seen {seen_us:.0f}: {(seen_us - without) / MESSAGES:.0f} a message"
    )


if __name__ == "__main__":
    main()
