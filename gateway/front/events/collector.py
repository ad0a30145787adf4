"""The collector of OpenTelemetry: takes traces and metrics by OTLP over HTTP, in its JSON form (OTLP 1.x).

What it wants to be shown, such as a key, stands in a file of header lines for its owner alone
(`VOICEGATE_OTLP_HEADERS_FILE`), and in no log, error or repr. Its answer is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.config.paths import route_key_path
from gateway.config.private_file import private_bytes
from gateway.config.settings import Settings
from gateway.edge.grammar.token import route_key
from gateway.errors import SettingsError
from gateway.front.events.failed_delivery import is_untrusted, why_undelivered
from gateway.front.house.guarded_transport import guarded_client
from model import __version__

ANSWER_S: Final = 10.0
MOST_ANSWER: Final = 16_384
"""Bytes of an answer that are looked at; a sound one has 2."""
MOST_HEADERS: Final = 16
SETTING: Final = "VOICEGATE_OTLP_HEADERS_FILE"
MOST_FILE: Final = 16_384
LONGEST: Final = 128
"""Characters of an attribute."""
HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,128})[ \t]*:[ \t]*([!-~]([ -~]*[!-~])?)")
"""RFC 9110 §5.1, §5.5; ASCII alone."""
OURS: Final = frozenset(
    {"host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection",
     "accept-encoding", "user-agent", "te", "upgrade", "expect", "trailer"}
)  # fmt: skip
"""Headers that say what we send, or how."""


@dataclass(frozen=True, slots=True)
class CollectorAnswer:
    """What became of a request. `status` is HTTP's; 0: none came, and `why` says the reason."""

    status: int
    why: str = ""
    rejected: int = 0
    """spans or points that it did not take, of a request that it took (partial success)"""
    after_s: float = 0.0
    """how long it wants to be left alone"""

    @property
    def took(self) -> bool:
        """Whether it took the request."""
        return 200 <= self.status < 300


class Collector:
    """The one at `url`, to which `/v1/traces` and `/v1/metrics` are added.

    `headers`: what it is shown. `instance`: what this house calls itself (`service.instance.id`).
    """

    def __init__(self, url: str, headers: Mapping[str, str] = {}, instance: str = "") -> None:
        self._url = url.rstrip("/")
        self._headers = {
            **headers,
            "Content-Type": "application/json",
            "User-Agent": "voicegate",
            "Accept-Encoding": "identity",
        }
        self._instance = instance
        self._trust = ssl.create_default_context()
        self._client: httpx.AsyncClient | None = None

    @classmethod
    def of(cls, conf: Settings) -> Collector | None:
        """The one that the settings name. Raises `SettingsError`."""
        if conf.otlp_url is None:
            return None
        key = hmac.digest(route_key(route_key_path(conf)), b"instance of telemetry", "sha256")
        return cls(conf.otlp_url, shown_headers(conf.otlp_headers_file), str(uuid.UUID(bytes=key[:16])))

    @property
    def resource(self) -> dict[str, Any]:
        """OTLP's `Resource`: who sends."""
        named = {"service.name": "voicegate", "service.version": __version__}
        if self._instance:
            named["service.instance.id"] = self._instance
        return {"attributes": attributes(named)}

    async def post(self, signal: str, table: Mapping[str, Any]) -> CollectorAnswer:
        """Sends `table` to `/v1/SIGNAL`. Raises nothing."""
        body = json.dumps(table, separators=(",", ":")).encode()
        if self._client is None:
            self._client = guarded_client(self._trust, ANSWER_S)
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream(
                    "POST", f"{self._url}/v1/{signal}", content=body, headers=self._headers
                ) as answer,
            ):
                return await _read(answer)
        except TimeoutError:
            return CollectorAnswer(0, f"no answer within {ANSWER_S:g} s")
        except (httpx.HTTPError, OSError, ValueError) as error:  # its text may have the URL, or a header
            if is_untrusted(error):  # by the next try this machine may trust others
                await asyncio.to_thread(self._trust.load_default_certs)
            return CollectorAnswer(0, why_undelivered(error))

    async def close(self) -> None:
        """Lets go of its connections."""
        if self._client is not None:
            await self._client.aclose()


async def _read(answer: httpx.Response) -> CollectorAnswer:
    status = answer.status_code
    if 200 <= status < 300:
        return CollectorAnswer(status, rejected=_rejected(await _body(answer)))
    after = answer.headers.get("retry-after", "")
    after_s = float(after) if after.isascii() and after.isdigit() and len(after) < 9 else 0.0
    return CollectorAnswer(status, f"HTTP {status}", after_s=after_s)


async def _body(answer: httpx.Response) -> bytes:
    """Its first bytes; a longer one says nothing that is wanted."""
    got = b""
    async for piece in answer.aiter_raw():
        got += piece
        if len(got) > MOST_ANSWER:
            return b""
    return got


def _rejected(body: bytes) -> int:
    """How many it did not take. What it says of the reason is not read: it may be what we showed it."""
    try:
        said = json.loads(body)["partialSuccess"]
        counts = [said.get(name) for name in ("rejectedSpans", "rejectedDataPoints")]
        return max(0, *(int(str(count)[:12]) for count in counts if count is not None), 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0


def shown_headers(file: Path | None) -> dict[str, str]:
    """The lines `Name: value` of that file; none without one. Raises `SettingsError`, which quotes none."""
    if file is None:
        return {}
    where = f"{SETTING}: {file}"
    text = private_bytes(SETTING, file, MOST_FILE)
    found: dict[str, str] = {}
    for number, line in enumerate(text.decode("latin-1").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        written = HEADER.fullmatch(line.strip())
        if written is None:
            raise SettingsError(f"{where}:{number}: write Name: value, in ASCII")
        name = written[1].lower()
        if name in OURS or name in found:
            raise SettingsError(f"{where}:{number}: {'set by the gateway' if name in OURS else 'set twice'}")
        found[name] = written[2]
    if not 0 < len(found) <= MOST_HEADERS:
        raise SettingsError(f"{where} should have 1 to {MOST_HEADERS} lines such as Authorization: Bearer …")
    return found


def attributes(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table as attributes of OTLP."""
    return [{"key": name, "value": _value(value)} for name, value in table.items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)[:LONGEST]}
