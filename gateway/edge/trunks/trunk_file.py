"""Reads `trunks.toml`, and refuses what cannot be meant: each mistake with file, line and remedy.

[[trunk]]
name = "carrier"
hosts = ["sip.example.com"]
user = "4930123456"
password_file = "carrier.password"   # beside this file, readable by its owner alone
register = true
numbers = ["+4930123456"]
prefixes = ["+49"]
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NoReturn

from gateway.config.certificate import asking
from gateway.dialplan.named_tables import TablePath, read_named, secret_named
from gateway.dialplan.plan_text import PlanFile, unknown
from gateway.dialplan.target_address import NUMBER, TRUNK_NAME
from gateway.edge.trunks.trunk import FINGERPRINT, KnownBy, Trunk, TrunkHost
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.errors import SettingsError

LONGEST_PASSWORD: Final = 256
MOST_TRUNKS: Final = 32
_USER: Final = re.compile(r"[A-Za-z0-9_.!~*'()&=+$,;?/%@-]{1,128}")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")


def read_trunks(file: Path) -> tuple[Trunk, ...]:
    """All trunks of the file; none when there is no such file. Raises `SettingsError`."""

    def read(given: Mapping[str, Any], source: PlanFile, path: TablePath) -> Trunk:
        return _TrunkReader(given, source, path, file.parent).trunk()

    return read_named(file, "trunk", MOST_TRUNKS, read, _shows_its_own)


def _shows_its_own(trunk: Trunk, others: Iterable[Trunk], source: PlanFile, path: TablePath) -> None:
    for other in others:
        if other.authority == trunk.authority and not set(other.shows).isdisjoint(trunk.shows):
            source.fail((*path, "shows"), f"trunk {other.name} shows the same; name each by its own")


class _TrunkReader:
    """One `[[trunk]]`."""

    def __init__(
        self, given: Mapping[str, Any], source: PlanFile, path: tuple[str | int, ...], folder: Path
    ) -> None:
        self._given = given
        self._source = source
        self._path = path
        self._folder = folder

    def trunk(self) -> Trunk:
        known = [one.name for one in fields(Trunk) if one.name != "password"] + ["password_file"]
        for key in self._given:
            if key == "password":
                self._fail(key, "no password stands in this file; name a file that holds it: password_file")
            if key not in known:
                self._fail(key, unknown(key, known))
        name = self._text("name", re.compile(TRUNK_NAME), "lower-case letters, digits, - and _")
        if not name:
            self._fail("name", "a trunk needs a name")
        hosts = self._texts("hosts", TrunkHost.read)
        if not hosts:
            self._fail(
                "hosts", 'hosts is missing: where the trunk is, for example hosts = ["sip.example.com"]'
            )
        user = self._text("user", _USER, "a user's name without blanks and quotes")
        password = self._password()
        register = self._flag("register")
        if register and not user:
            self._fail("register", "only a user can register; add user")
        if password and not user:
            self._fail("password_file", "a password is a user's; add user")
        transport = self._one_of("transport", ("udp", "tcp", "tls"))
        srtp = self._one_of("srtp", ("off", "optional", "required"))
        if srtp == "required" and transport != "tls":
            self._fail("srtp", 'keys for sound go over TLS alone; add transport = "tls"')
        sips = self._flag("sips")
        if sips and transport != "tls":
            self._fail("sips", 'sips goes over TLS alone; add transport = "tls"')
        shows = self._texts("shows", _shown)
        trunk = Trunk(
            name=name,
            hosts=hosts,
            transport=transport,
            domain=self._text("domain", _DOMAIN, "a host's name or address"),
            user=user,
            password=password,
            realm=self._text("realm", re.compile(r'[^"\\\x00-\x1f]{1,128}'), "text without quotes"),
            register=register,
            expires_s=int(self._number("expires_s", 600, 60, 86_400)),
            numbers=self._texts("numbers", _number),
            calls=int(self._number("calls", 2, 1, 1_000)),
            per_minute=int(self._number("per_minute", 10, 1, 10_000)),
            prefixes=self._texts("prefixes", _number),
            networks=self._texts("networks", lambda text: str(ipaddress.ip_network(text, strict=False))),
            trusted=self._flag("trusted"),
            srtp=srtp,
            ping_s=self._number("ping_s", 30.0, 0, 3_600),
            sips=sips,
            certificate=self._file("certificate"),
            key=self._file("key"),
            authority=self._file("authority"),
            shows=shows,
            known_by=self._known_by(shows),
        )
        self._check_tls(trunk)
        return trunk

    def _known_by(self, shows: tuple[str, ...]) -> KnownBy:
        usual = ("certificate", "address") if shows else ("address", "certificate")
        known: KnownBy = self._one_of("known_by", (*usual, "either", "both"))
        if known != "address" and not shows:
            self._fail("known_by", 'name what its certificate says: shows = ["sip.example.com"]')
        return known

    def _check_tls(self, trunk: Trunk) -> None:
        """Whether its files can be used, and together."""
        for key in ("certificate", "key", "authority", "shows"):
            if getattr(trunk, key) and trunk.transport != "tls":
                self._fail(key, f'{key} is for TLS; add transport = "tls"')
        if (trunk.certificate is None) != (trunk.key is None):
            there, missing = ("certificate", "key") if trunk.key is None else ("key", "certificate")
            self._fail(there, f"certificate and key belong together; add {missing}")
        if trunk.shows and trunk.authority is None:
            self._fail("shows", "a name says nothing without who signed it; add authority, a file")
        try:
            TrunkTls(trunk, asking).context()
        except SettingsError as error:
            named = str(error).partition(":")[0].rpartition(" ")[2]
            self._fail(named if named in ("certificate", "key") else "authority", str(error))

    def _file(self, key: str) -> Path | None:
        named = self._given.get(key)
        if named is None:
            return None
        if not isinstance(named, str) or not named:
            self._fail(key, f"{key} is the name of a file")
        return self._folder / str(named)

    def _fail(self, key: str, message: str) -> NoReturn:
        self._source.fail((*self._path, key), message)

    def _text(self, key: str, pattern: re.Pattern[str], meant: str) -> str:
        value = self._given.get(key, "")
        if value != "" and (not isinstance(value, str) or pattern.fullmatch(value) is None):
            self._fail(key, f"{key} = {value!r} should be {meant}")
        return str(value)

    def _texts(self, key: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
        values = self._given.get(key, [])
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            self._fail(key, f'{key} is a list of texts, for example {key} = ["…"]')
        found = []
        for value in values:
            try:
                found.append(read(value))
            except ValueError as error:
                self._fail(key, f"{key}: {error}")
        return tuple(found)

    def _flag(self, key: str) -> bool:
        value = self._given.get(key, False)
        if not isinstance(value, bool):
            self._fail(key, f"{key} = {value!r} should be true or false")
        return bool(value)

    def _number(self, key: str, usual: float, least: float, most: float) -> float:
        value = self._given.get(key, usual)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self._fail(key, f"{key} = {value!r} should be a number from {least:g} to {most:g}")
        return float(value)

    def _one_of(self, key: str, known: tuple[str, ...]) -> Any:
        value = self._given.get(key, known[0])
        if value not in known:
            self._fail(key, unknown(str(value), known, what=key))
        return value

    def _password(self) -> str:
        named = self._given.get("password_file")
        if named is None:
            return ""
        password = secret_named(named, self._folder, "password_file", self._fail).removesuffix("\n")
        if not password or len(password) > LONGEST_PASSWORD or not password.isprintable():
            what = f"{self._folder / named} should be one line of 1 to {LONGEST_PASSWORD} characters"
            self._fail("password_file", what)
        return password


def _shown(text: str) -> str:
    """A name of a certificate in small letters, or its fingerprint in one way of writing."""
    text = text.strip().lower()
    if text.startswith(FINGERPRINT):
        digits = text.removeprefix(FINGERPRINT).replace(":", "").strip()
        if re.fullmatch("[0-9a-f]{64}", digits) is None:
            raise ValueError(f"{text!r} is not a fingerprint; write sha256: and its 64 hexadecimal digits")
        return FINGERPRINT + digits
    if _DOMAIN.fullmatch(text) is None:
        raise ValueError(f'{text!r} is not a name; write for example "sip.example.com"')
    return text


def _number(text: str) -> str:
    if re.fullmatch(NUMBER, text) is None:
        raise ValueError(f'{text!r} is not a number; write for example "+4930123456"')
    return text
