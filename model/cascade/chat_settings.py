"""Where the chat server is and what it may be asked for: the `VOICEGATE_LLM_*` variables, read and checked.

The gateway's preflight, its doctor and the engine read them here alike, so that one mistake has one message.
Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from model.address import is_local, is_safe
from model.errors import EngineError

PREFIX: Final = "VOICEGATE_LLM_"
COMPLETIONS: Final = "/chat/completions"
LONGEST_KEY: Final = 4096
"""Bytes of a key file."""
TOKENS: Final = 300
CONTEXT: Final = 4096
FILLER_S: Final = 1.0
GIVE_UP_S: Final = 7.0


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """One OpenAI-compatible server. `url` is what `/chat/completions` is put behind."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    tokens: int = TOKENS
    """of the longest answer"""
    context: int = CONTEXT
    """tokens that the model can look back on, its answer included"""
    filler_s: float = FILLER_S
    """after the question; a caller who still waits then hears that it takes a moment"""
    give_up_s: float = GIVE_UP_S
    """after the question; the caller then hears a farewell"""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """What the variables say. Raises `EngineError` naming the one that cannot be used."""
        url, model = environ.get(PREFIX + "URL", ""), environ.get(PREFIX + "MODEL", "")
        check_url(url)
        if not model.strip() or not model.isprintable():
            raise EngineError(f"{PREFIX}MODEL must name one of the server's models")
        key_file = environ.get(PREFIX + "KEY_FILE", "")
        settings = cls(
            url.rstrip("/").removesuffix(COMPLETIONS),
            model,
            read_key(Path(key_file).expanduser()) if key_file else None,
            round(_number(environ, "TOKENS", TOKENS)),
            round(_number(environ, "CONTEXT", CONTEXT)),
            _number(environ, "FILLER_S", FILLER_S),
            _number(environ, "GIVE_UP_S", GIVE_UP_S),
        )
        if settings.context < 2 * settings.tokens:
            raise EngineError(
                f"{PREFIX}CONTEXT: {settings.context} tokens leave too little beside an answer of "
                f"{settings.tokens} ({PREFIX}TOKENS); it must be twice that at least"
            )
        if settings.give_up_s <= settings.filler_s:
            raise EngineError(
                f"{PREFIX}GIVE_UP_S must be more than {PREFIX}FILLER_S, which is {settings.filler_s:g}"
            )
        return settings

    @property
    def leaves(self) -> bool:
        """Whether what a caller says leaves this machine."""
        return leaves_machine(self.url)


def leaves_machine(url: str) -> bool:
    """Whether what is said to `url` leaves this machine; also True for what nobody can read as an address."""
    try:
        return not is_local(urlsplit(url).hostname or "")
    except ValueError:
        return True


def check_url(url: str) -> None:
    """Raises `EngineError` for a server that cannot be asked, or not safely. The URL is not quoted where it
    holds a password."""
    name = PREFIX + "URL"
    if not url:
        raise EngineError(
            f"{name} names no server: write where an OpenAI-compatible one listens, as http://127.0.0.1:8080/v1"
        )
    if not url.isascii() or any(sign <= " " or sign == "\x7f" for sign in url):
        raise EngineError(f"{name} holds a blank or a letter that a URL cannot have")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EngineError(f"{name}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise EngineError(f"{name} must not hold a password: put the key into a file ({PREFIX}KEY_FILE)")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise EngineError(f"{name}: {url} must begin with https://, or http:// on this machine, and a host")
    if parts.query or parts.fragment:
        raise EngineError(f"{name}: {url} must end with its path, as https://host/v1")
    if not is_safe(url):
        raise EngineError(
            f"{name}: {url} would send what callers say in the clear; use https:// off this machine"
        )


def read_key(path: Path) -> str:
    """The key in a file, without blanks around it. Raises `EngineError`, which never quotes it."""
    name = PREFIX + "KEY_FILE"
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_KEY + 1)
    except OSError as error:
        raise EngineError(f"{name}: {path} cannot be read: {error.strerror}") from None
    try:
        key = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or len(raw) > LONGEST_KEY or not key.isprintable() or " " in key:
        raise EngineError(f"{name}: {path} must hold the key alone, in one line")
    return key


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    given = environ.get(PREFIX + name)
    if not given:
        return default
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e7:
        raise EngineError(f"{PREFIX}{name}: {given!r} must be a number above 0")
    return number
