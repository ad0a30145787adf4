"""What may be done to a Redis, or by it, for tests and benches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from consent.archive.keys import SigningKey
from consent.grants.grant import b64, sign
from consent.grants.revocation import CHANNEL, KEY, TYP

Hostile = Callable[[Any, SigningKey, int], Awaitable[None]]
"""(Redis, the office's key, how many times): the key signs what the office may have signed otherwise."""


def _jws(head: bytes, body: bytes = b"{}") -> str:
    return f"{b64(head)}.{b64(body)}.{b64(bytes(64))}"


def _head(signer: SigningKey, **other: object) -> bytes:
    return json.dumps({"alg": "EdDSA", "typ": TYP, "kid": signer.kid, **other}).encode()


def _messages(make: Callable[[SigningKey], list[Any]]) -> Hostile:
    async def publish(redis: Any, signer: SigningKey, times: int) -> None:
        made = make(signer)
        for at in range(0, times, 50):
            async with redis.pipeline(transaction=False) as pipe:
                for number in range(at, min(times, at + 50)):
                    pipe.publish(CHANNEL, made[number % len(made)])
                await pipe.execute()

    return publish


def _commands(*commands: tuple[Any, ...]) -> Hostile:
    async def execute(redis: Any, _: SigningKey, times: int) -> None:
        for number in range(times):
            with contextlib.suppress(Exception):  # what is there already may be of another type
                await redis.execute_command(*commands[number % len(commands)])

    return execute


def _once(*command: str) -> Hostile:
    """What lasts: a second time would wait for the end of the first."""

    async def execute(redis: Any, _: SigningKey, times: int) -> None:
        await redis.execute_command(*command)

    return execute


async def _large(redis: Any, _: SigningKey, times: int) -> None:
    """A tenth of a gigabyte each, ten at most: the server itself has no room for more of them."""
    huge = b"a" * 100_000_000
    for _number in range(min(times, 10)):
        with contextlib.suppress(Exception):
            await redis.publish(CHANNEL, huge)


async def _large_field(redis: Any, _: SigningKey, times: int) -> None:
    with contextlib.suppress(Exception):
        await redis.hset(KEY, "huge", b"a" * 100_000_000)


async def _fields(redis: Any, _: SigningKey, times: int) -> None:
    for number in range(times):
        with contextlib.suppress(Exception):
            await redis.hset(KEY, b"\xff%d" % number, b"\xfe[")


async def _other_channels(redis: Any, signer: SigningKey, times: int) -> None:
    for number in range(times):
        await redis.publish((CHANNEL + ".x", "vg:other", b"\xff")[number % 3], b"\xff\x00")


async def _kills(redis: Any, _: SigningKey, times: int) -> None:
    for _number in range(times):
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0)


HOSTILE: Final[dict[str, Hostile]] = {
    "invalid UTF-8": _messages(lambda _: [b"\xff", b"\xc3\x28", b"\x00", b""]),
    "deep nesting": _messages(
        lambda s: ["[" * 100_000, _jws(b"[" * 5_000), _jws(_head(s), b"[" * 5_000), _jws(b'{"a":' * 1_000)]
    ),
    "1 MB strings": _messages(lambda _: [b"a" * 1_000_000, b"." * 1_000_000]),
    "100 MB strings": _large,
    "other JSON types": _messages(
        lambda s: [
            "5",
            "null",
            "[]",
            '"x"',
            _jws(b"5"),
            _jws(b"[]"),
            _jws(b"null"),
            _jws(_head(s), b"[1]"),
            _jws(_head(s, kid=[1])),
            _jws(_head(s, alg=None)),
            _jws(b'{"alg":"EdDSA","typ":1e999}'),
        ]
    ),
    "wrong claims, signed": _messages(
        lambda s: [
            sign(claims, s.private, s.kid, TYP)
            for claims in (
                {"sub": 5, "vh": "h", "iat": 1},
                {"sub": "a", "vh": ["h"], "iat": 1},
                {"sub": "a", "iat": 1},
                {"sub": "a", "vh": "h", "iat": "soon"},
                {"sub": "a", "vh": "h", "iat": 10**400},
                {"sub": "a", "vh": {}, "reason": [], "iat": None},
            )
        ]
    ),
    "another type of token": _messages(
        lambda s: [
            sign({"sub": "a", "vh": "h", "iat": 1}, s.private, s.kid, typ)
            for typ in ("voice-grant+jws", "", "operator-act+jws")
        ]
    ),
    "a revocation replayed": _messages(
        lambda s: [sign({"sub": "old", "vh": "hash-of-old", "iat": 1.0}, s.private, s.kid, TYP)]
    ),
    "other channels": _other_channels,
    "the set as a string": _commands(("SET", KEY, "x")),
    "the set as other types": _commands(
        ("DEL", KEY),
        ("RPUSH", KEY, b"\xff"),
        ("DEL", KEY),
        ("ZADD", KEY, "1", "x"),
        ("DEL", KEY),
        ("XADD", KEY, "*", "a", "b"),
        ("DEL", KEY),
        ("SADD", KEY, "x"),
    ),
    "fields of junk": _fields,
    "a field of 100 MB": _large_field,
    "the set deleted": _commands(("DEL", KEY), ("FLUSHALL",)),
    "subscribers thrown out": _kills,
    "no memory": _once("CONFIG", "SET", "maxmemory", "1"),
    "writes paused": _once("CLIENT", "PAUSE", "60000", "WRITE"),
    "all paused": _once("CLIENT", "PAUSE", "60000", "ALL"),
}


@asynccontextmanager
async def slow(path: Path, upstream: Path | None, delay_s: float = 2.0) -> AsyncIterator[str]:
    """The URL of a Redis that takes `delay_s` for each answer, or, without an upstream, never answers."""
    tasks: set[asyncio.Task[Any]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(wait_s, writer.write, data)
        loop.call_later(wait_s, writer.close)

    async def took(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if upstream is None:
            with contextlib.suppress(OSError):
                while await reader.read(1 << 16):
                    pass
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(str(upstream))
        for work in (carry(reader, up_writer, 0.0), carry(up_reader, writer, delay_s)):
            task = asyncio.create_task(work)
            tasks.add(task)

    server = await asyncio.start_unix_server(took, str(path))
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
