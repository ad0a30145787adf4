"""The gateway's API, for our own commands: on this machine by the console's token, elsewhere by --url.

    voicegate --url https://gate.example:8443 --token-from FILE calls

No token stands in an argument: it comes from a file, for this machine's own gateway from its data directory.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import click
import httpx

from gateway.cli.house.paged_list import Entries, paged
from gateway.config.own_address import in_url
from gateway.config.settings import Settings
from gateway.errors import VoicegateError
from gateway.ipc.front_messages import Reloaded
from gateway.store.sip_users import console_token

META: Final = "gateway.elsewhere"
TIMEOUT_S: Final = 10.0
RELOAD_S: Final = 90.0
LONGEST_TOKEN: Final = 1024
AT_ONCE: Final = 1000
"""Calls in a page."""


class ApiError(VoicegateError):
    """The gateway refused, or does not answer."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the gateway answered {status}"))
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A gateway that is asked over the network."""

    url: str
    token_from: Path | None
    trust: Path | None
    """PEM file with the authority of its certificate, or that itself; None: this machine's authorities."""


class HouseClient:
    """One gateway's API. Every method raises `ApiError`."""

    def __init__(self, url: str, token: str, trust: Path | None = None, *, own: bool = False) -> None:
        """`own`: it runs on this machine. Raises `ApiError` for an address that cannot be."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ApiError(0, {"detail": f"{url!r} is not a URL such as https://gate.example:8443"})
        if parts.scheme == "http" and not own and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ApiError(0, {"detail": "a token goes over https:// only, but to this machine itself"})
        self.url = url.rstrip("/")
        self.silence = ""
        """Why it is not known which of the listed calls live; empty: it is."""
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            verify=True if trust is None else _trusting(trust),
            trust_env=False,  # no proxy of the environment's sees the token
        )

    @classmethod
    def of(cls, context: click.Context, settings: Settings) -> Self:
        """The gateway that --url names; else this machine's own, by its console's token."""
        named: Elsewhere | None = context.find_root().meta.get(META)
        if named is not None:
            return cls(named.url, token_in(named.token_from), named.trust)
        host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104  # compared
        return cls(f"http://{in_url(host)}:{settings.http_port}", console_token(settings.data_dir), own=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives its connections back."""
        self._http.close()

    def events(
        self, last: str | None, asked: Mapping[str, str], timeout: httpx.Timeout
    ) -> AbstractContextManager[httpx.Response]:
        """The stream of events, from the one after `last` on. Raises `httpx.HTTPError`, and nothing else."""
        headers = {} if last is None else {"Last-Event-ID": last}
        url = f"{self.url}/api/events"
        return self._http.stream("GET", url, params=dict(asked), headers=headers, timeout=timeout)

    def _ask(self, method: str, path: str, *, timeout_s: float = TIMEOUT_S, **more: Any) -> Any:
        try:
            answer = self._http.request(method, self.url + path, timeout=timeout_s, **more)
            told = answer.json() if answer.content else {}
        except httpx.HTTPError as error:
            raise ApiError(
                0, {"detail": f"{self.url} does not answer ({error}); is the gateway running?"}
            ) from None
        except ValueError:
            raise ApiError(0, {"detail": f"{self.url} does not answer as a voicegate does"}) from None
        if answer.is_success:
            return told
        raise ApiError(answer.status_code, told if isinstance(told, dict) else {})

    def me(self) -> dict[str, Any]:
        """Whose the token is, and what it may."""
        return dict(self._ask("GET", "/api/me"))

    def calls(self, count: int | None, **search: Any) -> Iterator[dict[str, Any]]:
        """The calls found, `count` at most (None: all); `search` as the operation `list_calls` has it."""
        return self._listed("/api/calls", "calls", count, search)

    def refused(self, count: int | None, **search: Any) -> Iterator[dict[str, Any]]:
        """The calls that were not taken; `search` as the operation `list_refused` has it."""
        return self._listed("/api/refused", "refused", count, search)

    def _listed(
        self, path: str, name: str, count: int | None, search: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """A list, page by page."""
        asked = {key: value for key, value in search.items() if value not in (None, "", False)}

        def read(most: int, cursor: str | None) -> tuple[Entries, str | None]:
            at = {"cursor": cursor} if cursor else {}
            page = self._ask("GET", path, params={**asked, "limit": most, **at})
            self.silence = self.silence or str(page.get("silence") or "")
            return page[name], page["next"]

        return paged(read, count, AT_ONCE)

    def call(self, call_id: str) -> dict[str, Any]:
        """One call with its turns and events."""
        return dict(self._ask("GET", f"/api/calls/{quote(call_id, safe='')}"))

    def call_course(self, call_id: str) -> dict[str, Any]:
        """One call to time, with its messages and its lines of the log."""
        return dict(self._ask("GET", f"/api/calls/{quote(call_id, safe='')}/course"))

    def end_call(self, call_id: str) -> None:
        """Hangs it up."""
        self._ask("DELETE", f"/api/calls/{quote(call_id, safe='')}")

    def house(self) -> dict[str, Any]:
        """How the whole house is."""
        return dict(self._ask("GET", "/api/house"))

    def check_plans(self) -> str:
        """The version of the dialplans that would load."""
        return str(self._ask("POST", "/api/dialplans/check", timeout_s=RELOAD_S)["version"])

    def reload(self) -> Reloaded:
        """What became of a reload, also where something did not load."""
        try:
            told = self._ask("POST", "/api/reload", timeout_s=RELOAD_S)
        except ApiError as error:
            if "failed" not in error.problem:
                raise
            told = error.problem
        return Reloaded(str(told["plan"]), str(told["was"]), dict(told["failed"]), tuple(told["notes"]))

    def trunks(self) -> list[dict[str, Any]]:
        """All trunks, and how they are."""
        return list(self._ask("GET", "/api/trunks")["trunks"])

    def put_trunk(self, name: str, *, in_service: bool, why: str = "") -> None:
        """Takes it out of service, or puts it back."""
        wish = {"in_service": in_service, "why": why}
        self._ask("PUT", f"/api/trunks/{quote(name, safe='')}/service", json=wish)

    def tokens(self) -> list[dict[str, Any]]:
        """All tokens, without their secrets."""
        return list(self._ask("GET", "/api/tokens")["tokens"])

    def make_token(self, name: str, role: str, expires_s: float) -> dict[str, Any]:
        """A new token, with its secret under `token`."""
        wish = {"name": name, "role": role, "expires_s": expires_s}
        return dict(self._ask("POST", "/api/tokens", json=wish))

    def revoke_token(self, token_id: str) -> None:
        """From now on it opens nothing."""
        self._ask("DELETE", f"/api/tokens/{quote(token_id, safe='')}")


def _trusting(file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # an `ssl.SSLError` is one
        raise ApiError(0, {"detail": f"{file}: no certificate can be read there: {error}"}) from None


def is_elsewhere(context: click.Context) -> bool:
    """Whether --url names a gateway."""
    return META in context.find_root().meta


def token_in(file: Path | None) -> str:
    """The token in a file's first line. Raises `ApiError`."""
    if file is None:
        raise ApiError(0, {"detail": "--url needs --token-from: a file with a token in its first line"})
    try:
        if file.is_file() and file.stat().st_mode & 0o077:
            raise ApiError(0, {"detail": f"{file} can be read by others; run: chmod 600 {file}"})
        with file.open() as opened:
            token = opened.readline(LONGEST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ApiError(0, {"detail": f"{file}: cannot be read: {error}"}) from None
    if not token or not token.isascii() or not token.isprintable():
        raise ApiError(0, {"detail": f"{file}: there is no token in its first line"})
    return token
