"""Reads `webhooks.toml`, and refuses what cannot be meant: each mistake with file, line and remedy.

[[webhook]]
name = "crm"
url = "https://crm.example.com/hooks/calls"
secret_file = "crm.secret"      # beside this file, for its owner alone; or secret_env = "CRM_SECRET"
types = ["call.ended", "message.left"]
personal = true                 # words and numbers too; else ids alone
retry_s = 86400
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from gateway.dialplan.named_tables import TablePath, read_named, secret_named
from gateway.dialplan.plan_text import PlanFile, unknown
from gateway.front.house.guarded_transport import is_here
from gateway.store.call_events import TYPES

MOST_WEBHOOKS: Final = 16
LEAST_SECRET: Final = 16
"""Bytes: a shorter one is guessed."""
MOST_SECRETS: Final = 2
"""The new one and the old one, while a receiver changes them."""
LONGEST_RETRY_S: Final = 86_400.0
KNOWN: Final = ("name", "url", "secret_file", "secret_env", "types", "personal", "retry_s")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MAIL: Final = "mail"
"""The name under which the mail relay is told."""
USUAL: Final = frozenset(TYPES) - {"call.note"}
"""What a webhook is told that names no types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A receiver over HTTP."""

    name: str
    url: str = field(repr=False)
    """may have a token in it"""
    secrets: tuple[bytes, ...] = field(repr=False)
    types: frozenset[str] = USUAL
    personal: bool = False
    retry_s: float = LONGEST_RETRY_S


def read_webhooks(file: Path) -> tuple[Webhook, ...]:
    """All webhooks of the file; none when there is no such file. Raises `SettingsError`."""

    def read(given: Mapping[str, Any], source: PlanFile, path: TablePath) -> Webhook:
        return _WebhookReader(given, source, path, file.parent).webhook()

    return read_named(file, "webhook", MOST_WEBHOOKS, read)


class _WebhookReader:
    """One `[[webhook]]`."""

    def __init__(
        self, given: Mapping[str, Any], source: PlanFile, path: tuple[str | int, ...], folder: Path
    ) -> None:
        self._given = given
        self._source = source
        self._path = path
        self._folder = folder

    def _fail(self, key: str, message: str) -> NoReturn:
        self._source.fail((*self._path, key), message)

    def webhook(self) -> Webhook:
        for key in self._given:
            if key == "secret":
                self._fail(key, "no secret stands in this file; name a file that holds it: secret_file")
            if key not in KNOWN:
                self._fail(key, unknown(key, KNOWN))
        name = self._given.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self._fail("name", "a webhook needs a name of lower-case letters, digits, - and _")
        if name == MAIL:
            self._fail("name", f"{MAIL} is the mail relay's name; choose another one")
        personal = self._given.get("personal", False)
        if not isinstance(personal, bool):
            self._fail("personal", "personal is true or false")
        retry_s = self._given.get("retry_s", LONGEST_RETRY_S)
        if isinstance(retry_s, bool) or not isinstance(retry_s, int | float) or not 1 <= retry_s <= 86_400:
            self._fail("retry_s", "retry_s is a number of seconds, 1 to 86400")
        return Webhook(
            name=str(name), url=self._url(), secrets=self._secrets(), types=self._types(), personal=personal,
            retry_s=float(retry_s),
        )  # fmt: skip

    def _url(self) -> str:
        url = self._given.get("url")
        try:
            parts = urlsplit(url) if isinstance(url, str) and url.isascii() and url.isprintable() else None
            host = None if parts is None else parts.hostname
            port = None if parts is None else parts.port
        except ValueError:
            parts = host = port = None
        if parts is None or not host or port == 0 or parts.scheme not in ("https", "http") or " " in str(url):
            self._fail("url", 'url is missing, or cannot be one: url = "https://crm.example.com/hooks"')
        if parts.username is not None or parts.password is not None or parts.fragment:
            self._fail("url", "url may have no user, no password and no fragment")
        if parts.scheme == "http" and not is_here(host):
            self._fail("url", "only a receiver on this machine may be told without TLS; use https")
        return str(url)

    def _types(self) -> frozenset[str]:
        given = self._given.get("types")
        if given is None:
            return USUAL
        if not isinstance(given, list) or not given:
            self._fail("types", 'types is a list, for example types = ["call.ended"]')
        for one in given:
            if one not in TYPES:
                self._fail("types", unknown(str(one), tuple(TYPES)))
        return frozenset(given)

    def _secrets(self) -> tuple[bytes, ...]:
        file, variable = self._given.get("secret_file"), self._given.get("secret_env")
        if (file is None) == (variable is None):
            self._fail("secret_file", "name one of secret_file and secret_env, where the secret is")
        key = "secret_file" if file is not None else "secret_env"
        text = os.environ.get(str(variable), "")
        if file is not None:
            text = secret_named(file, self._folder, key, self._fail)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not 1 <= len(lines) <= MOST_SECRETS:
            self._fail(key, "it should hold one secret, or two in two lines while it is changed")
        found = tuple(map(_secret, lines))
        if any(len(one) < LEAST_SECRET for one in found):
            self._fail(key, f"a secret of less than {LEAST_SECRET} bytes is guessed: openssl rand -hex 32")
        return found


def _secret(line: str) -> bytes:
    """What follows `whsec_` is base64, as others write such secrets; anything else is taken as it is."""
    if line.startswith("whsec_"):
        try:
            return base64.b64decode(line.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            return b""
    return line.encode()
