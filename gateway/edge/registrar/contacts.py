"""What the Contacts of a REGISTER ask for (RFC 3261 §10.3, RFC 5626 §6); all of it is a stranger's text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.edge.grammar.header import Address, addresses, unquoted
from gateway.edge.grammar.responses import Turned
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.uri import SIP, URI
from gateway.ipc.binding import hash_of

MOST_CONTACTS: Final = 8
"""Of one user, and so of one REGISTER."""
MOST_PATHS: Final = 8
MAX_CONTACT: Final = 512
MAX_INSTANCE: Final = 128
MAX_PATH: Final = 1_024
"""Characters of all Path lines together."""
MOST_REG_ID: Final = (1 << 31) - 1
MALFORMED_S: Final = 3600
"""What an Expires says that cannot be read (RFC 3261 §10.2.1.1, §20.19)."""
_SECONDS: Final = re.compile(r"[0-9]{1,10}")
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_REG_ID: Final = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Expiry:
    """For how long a registration holds, in seconds: what a Contact may ask for, and what it gets else."""

    least_s: int = 60
    most_s: int = 3600
    default_s: int = 3600

    def granted(self, asked_s: int) -> int:
        """What a Contact gets that asks for so much; 0 stays 0."""
        return min(asked_s, self.most_s)


@dataclass(frozen=True, slots=True)
class ContactWish:
    """One Contact of a REGISTER."""

    key: str
    uri: URI
    expires_s: int
    """0: it shall be removed"""
    instance: str
    reg_id: int
    """0: not by RFC 5626"""
    q: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """All that a REGISTER asks for; none and not `clear`: to be told what there is."""

    contacts: tuple[ContactWish, ...] = ()
    clear: bool = False
    """`Contact: *`: all of the user's shall be removed"""
    path: tuple[str, ...] = ()

    @property
    def outbound(self) -> bool:
        """Whether it registers a flow by RFC 5626."""
        return any(one.reg_id for one in self.contacts)


def wishes_of(request: Request, expiry: Expiry) -> Wishes | Turned:
    """What a REGISTER asks for, or the answer to one that cannot be done."""
    lines = request.headers.getlist("Contact")
    general = request.headers.get("Expires")
    if any("*" in (piece.strip() for piece in line.split(",")) for line in lines):
        alone = len(lines) == 1 and lines[0].strip() == "*"
        if not alone or general is None or _seconds(general) != 0:
            return Turned(400, "a * stands alone, with Expires: 0")  # RFC 3261 §10.3, step 6
        return Wishes(clear=True)
    try:
        contacts = addresses(lines)
        path = _path(request)
    except ValueError as error:
        return Turned(400, str(error))
    if len(contacts) > MOST_CONTACTS:
        return Turned(403, f"a user has {MOST_CONTACTS} contacts at most")
    by_flow = "outbound" in {word.lower() for word in request.supported}
    found: list[ContactWish] = []
    for contact in contacts:
        wish = _wish(contact, _expires_s(contact, general, expiry), by_flow=by_flow)
        if isinstance(wish, Turned):
            return wish
        if 0 < wish.expires_s < expiry.least_s:
            return Turned(423, extra={"Min-Expires": str(expiry.least_s)})
        found.append(wish)
    if sum(1 for one in found if one.reg_id and one.expires_s) > 1:
        return Turned(400, "one REGISTER registers one flow")  # RFC 5626 §4.2
    if len({one.key for one in found}) != len(found):
        return Turned(400, "a contact stands twice")
    return Wishes(tuple(found), path=path)


def _wish(contact: Address, expires_s: int, *, by_flow: bool) -> ContactWish | Turned:
    uri, parameters = contact.uri, contact.parameters
    if uri.scheme not in SIP:
        return Turned(400, "its Contact is not a SIP URI, so nobody could be reached there")
    if len(uri.text) > MAX_CONTACT or not uri.text.isprintable():
        return Turned(400, "its Contact is too long, or not printable")
    instance = unquoted(parameters.get("+sip.instance") or "")
    if len(instance) > MAX_INSTANCE or not instance.isprintable():
        return Turned(400, "its instance is too long, or not printable")
    reg_id = 0
    if by_flow and instance and (written := parameters.get("reg-id")) is not None:
        if _REG_ID.fullmatch(written) is None or int(written) > MOST_REG_ID:
            return Turned(400, "its reg-id is not a number from 1 on")
        reg_id = int(written)
    key = hash_of("flow", instance, str(reg_id)) if reg_id else hash_of("contact", canonical(uri))
    q = parameters.get("q") or ""
    return ContactWish(key, uri, expires_s, instance, reg_id, q if _QUALITY.fullmatch(q) else "")


def _expires_s(contact: Address, general: str | None, expiry: Expiry) -> int:
    own = contact.parameters.get("expires", "")
    if own != "":
        return expiry.granted(_seconds(own or "?"))
    return expiry.granted(expiry.default_s if general is None else _seconds(general))


def _seconds(text: str) -> int:
    text = text.strip()
    return int(text) if _SECONDS.fullmatch(text) else MALFORMED_S


def _path(request: Request) -> tuple[str, ...]:
    """Raises `ValueError`."""
    lines = request.headers.getlist("Path")
    routes = addresses(lines)
    if len(routes) > MOST_PATHS or sum(map(len, lines)) > MAX_PATH:
        raise ValueError("its Path is too long")
    if any(one.uri.scheme not in SIP for one in routes) or not all(line.isprintable() for line in lines):
        raise ValueError("its Path cannot be read")
    return tuple(lines)


def canonical(uri: URI) -> str:
    """One text for Contacts that are the same to RFC 3261 §19.1.4; parameters count, in any order."""
    before, at, place = uri.plain.partition(":")[2].rpartition("@")
    host, _, parameters = place.partition(";")
    rest = sorted(one.lower() for one in parameters.split(";") if one)
    return ";".join([f"{uri.scheme}:{before}{at}{host.lower()}", *rest])
