"""The ledger: append-only rows, each bound to the one before by its hash and signed by the office.

Row hash: SHA-256 over the JSON list [seq, at_ms, kind, subject, body, prev]; signature: Ed25519 over
`ROW_DOMAIN` and that hash. Since each hash covers the one before, the signature of the newest row vouches
for all rows up to it: a verification hashes every row and checks few signatures, and only when something is
wrong looks for the first row whose signature fails.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, insert, select

from consent.archive.keys import SigningKey, read_public
from consent.archive.tables import LEDGER
from consent.errors import LedgerError
from consent.grants.grant import b64, unb64
from consent.ledger.rulings import introduced, take
from consent.ledger.standing import QUIET, Standing

GENESIS: Final = "0" * 64
ROW_DOMAIN: Final = b"voicegate-ledger-row\0"
HEAD_TYP: Final = "ledger-head+jws"
PAGE: Final = 5_000
KEY_KINDS: Final = frozenset({"ledger.opened", "key.rotated", "key.revoked", "ledger.resumed"})
"""Kinds that change which keys sign; their own signatures are checked one by one."""
RESET: Final = "clock.set"
"""The kind of row by which an auditor says what the time is."""
MAY_GO_BACK: Final = frozenset({RESET, "ledger.resumed"})
"""Rows that may be earlier than the row before: an auditor's act stands behind each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the table. `body` is JSON text, `at_ms` milliseconds since the epoch."""

    seq: int
    at_ms: int
    kind: str
    subject: str | None
    body: str
    prev: str
    hash: str
    kid: str
    signature: str

    @classmethod
    def make(
        cls, seq: int, at_ms: int, kind: str, subject: str | None, body: Mapping[str, Any], prev: str,
        signer: SigningKey,
    ) -> Self:  # fmt: skip
        """The next row, signed."""
        written = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = row_hash(seq, at_ms, kind, subject, written, prev)
        signature = b64(signer.private.sign(ROW_DOMAIN + bytes.fromhex(digest)))
        return cls(seq, at_ms, kind, subject, written, prev, digest, signer.kid, signature)

    @property
    def table(self) -> dict[str, Any]:
        """The body, read."""
        return dict(json.loads(self.body))

    def to_json(self) -> dict[str, Any]:
        """The row by its columns."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def edited(self) -> bool:
        """Whether its hash is not its own."""
        return row_hash(self.seq, self.at_ms, self.kind, self.subject, self.body, self.prev) != self.hash

    def fault(self, prev: Row | None) -> str | None:
        """What is wrong with this row after `prev` (None: it is the first), signatures aside."""
        if self.seq != (prev.seq + 1 if prev else 1):
            return "a row is missing or out of order before it"
        if self.prev != (prev.hash if prev else GENESIS):
            return "it does not follow from the row before it"
        if self.edited:
            return "it was edited"
        if prev is not None and self.at_ms < prev.at_ms and self.kind not in MAY_GO_BACK:
            return "its time is before that of the row before it"
        return None

    def signed_by(self, keys: Mapping[str, Ed25519PublicKey]) -> bool:
        """Whether one of these keys, by kid, signed it."""
        key = keys.get(self.kid)
        try:
            if key is None:
                return False
            key.verify(unb64(self.signature), ROW_DOMAIN + bytes.fromhex(self.hash))
        except (InvalidSignature, ValueError):
            return False
        return True


def row_hash(seq: int, at_ms: int, kind: str, subject: str | None, body: str, prev: str) -> str:
    """A row's SHA-256 in hexadecimal, as the module says it is made."""
    whole = json.dumps([seq, at_ms, kind, subject, body, prev], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def put(connection: Connection, row: Row) -> None:
    """Writes a row to the table."""
    connection.execute(insert(LEDGER).values(row.to_json()))


def rows_from(connection: Connection, seq: int, subject: str | None = None) -> Iterator[Row]:
    """Rows with at least this number, in order, read by pages; of one subject when it is given."""
    while True:
        wanted = select(LEDGER).where(LEDGER.c.seq >= seq).order_by(LEDGER.c.seq).limit(PAGE)
        if subject is not None:
            wanted = wanted.where(LEDGER.c.subject == subject)
        page = [Row(*found) for found in connection.execute(wanted)]
        yield from page
        if len(page) < PAGE:
            return
        seq = page[-1].seq + 1


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row that a signer vouched for; exportable, so that somebody else can keep it."""

    seq: int
    hash: str
    at_ms: int

    def to_claims(self, now: float) -> dict[str, Any]:
        """What a signer says of it at `now` (seconds since the epoch); `head_of` reads that."""
        return {"seq": self.seq, "hash": self.hash, "at_ms": self.at_ms, "iat": now}


@dataclass(frozen=True, slots=True)
class Proof:
    """What `verify` found. `bad` is the number of the first bad row, None when all is well."""

    rows: int
    bad: int | None
    fault: str
    head: Head | None

    @property
    def ok(self) -> bool:
        """Whether nothing is bad."""
        return self.bad is None


def verify(
    rows: Iterator[Row],
    keys: Mapping[str, Ed25519PublicKey],
    heads: list[Head],
    revoked: Collection[str] = (),
) -> Proof:
    """Checks a whole ledger against public keys and heads kept elsewhere (this host's, an exported one).

    `keys` are the keys a verifier trusts to begin with; later ones are introduced by rows that these signed
    and an operator's act binds. `revoked` are those of which the ledger must say that they were revoked. A
    row that is void, by `consent.ledger.rulings`, is bad.
    """
    trusted = dict(keys)
    wanted = {head.seq: head for head in heads}
    standing = Standing()
    bad: list[Proof] = []
    unsigned: list[Row] = []  # since the last signature that was checked
    last: Row | None = None
    count = 0
    for row in rows:
        fault = row.fault(last)
        head = wanted.pop(row.seq, None)
        if fault is None and head is not None and head.hash != row.hash:
            fault = "it is not the row that the signed head names"
        if fault is None and row.kid in standing.stolen:
            fault = f"it is signed with the key {row.kid}, which was revoked before it"
        signed = True
        if row.kind not in QUIET and fault is None:
            signed = row.kind not in KEY_KINDS or row.signed_by({**trusted, **introduced(standing, row)})
            known = set(standing.signers)
            if (void := take(standing, row)) is not None and not bad:
                bad.append(Proof(count, row.seq, void, None))
            if row.kind != "ledger.opened":  # whom a verifier trusts to begin with is not for a row to say
                trusted |= {
                    kid: read_public(standing.signers[kid]) for kid in standing.signers.keys() - known
                }
        if not signed:
            fault = "its signature fails"
        if fault is not None:
            bad.append(Proof(count, row.seq, fault, None))
            break
        unsigned.append(row)
        last = row
        count += 1
        if len(unsigned) >= PAGE and row.signed_by(trusted):
            unsigned.clear()
    if unsigned and not unsigned[-1].signed_by(trusted):
        bad += _first_unsigned(unsigned, trusted, count)
    if bad:
        return min(bad, key=lambda proof: proof.bad or 0)
    seq = last.seq + 1 if last else 1
    if wanted:
        return Proof(count, seq, f"it is missing: a signed head names row {max(wanted)}", None)
    if gone := sorted(set(revoked) - standing.stolen.keys()):
        return Proof(count, seq, f"it is missing: the row by which the key {gone[0]} was revoked", None)
    return Proof(count, None, "", Head(last.seq, last.hash, last.at_ms) if last else None)


def _first_unsigned(rows: list[Row], keys: Mapping[str, Ed25519PublicKey], count: int) -> list[Proof]:
    """The first of the rows that was hashed anew after an edit: its signature fails."""
    for row in rows:
        if not row.signed_by(keys):
            return [Proof(count, row.seq, "its signature fails: it was edited and hashed anew", None)]
    return []


def head_of(claims: Mapping[str, Any]) -> Head:
    """Raises `LedgerError`."""
    try:
        return Head(int(claims["seq"]), str(claims["hash"]), int(claims["at_ms"]))
    except (KeyError, ValueError, TypeError):
        raise LedgerError("this is not a ledger head") from None
