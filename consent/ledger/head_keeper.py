"""Keeps the ledger's head with witnesses outside, and notices when they have seen more than is here.

`compare` asks them all; a ledger that is behind one of them, or differs from it at the same number, gives no
person's voice (`refuse`) until the newer database is back or an auditor resumes, by an act that names what is
given up. `run` publishes: at once after a row that changes something, once a minute after grants.
A witness that cannot be asked stops nobody for `AWAY_S`; after that, a process that has reached none since it
began refuses too.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.errors import GrantRefused, LedgerError, WitnessError
from consent.grants.boot_clock import boot_time
from consent.grants.grant import GrantVerifier, unb64
from consent.ledger.books import Books
from consent.ledger.chain import HEAD_TYP, Head, Row, head_of
from consent.ledger.witness import Outside, RedisWitness, UrlWitness, Witness, tell_syslog

LOOK_S: Final = 1.0
PUBLISH_S: Final = 60.0
"""How old a witness's head may be while grants are given."""
RETRY_S: Final = 5.0
AWAY_S: Final = 24 * 3600.0
"""So long persons' voices are granted by a process that has reached no witness yet."""

UNWITNESSED: Final = "nobody outside keeps its head: an older copy put back would not be noticed"

log = structlog.get_logger("consent")

Told = Callable[[str], None]


@dataclass(slots=True)
class _Watched:
    """One witness, as this process knows it."""

    witness: Witness
    kept: str | None = None
    """the token that it keeps"""
    head: Head | None = None
    """what that token says, when it is our office's and of this ledger"""
    found: Head | None = None
    """the last such head that is in the ledger here, or was given up"""
    compared: bool = False
    away_since: float | None = None
    tried_at: float = float("-inf")
    strange: bool = False
    """it keeps something that this office has not signed"""


@dataclass
class HeadKeeper:
    """One process's. Blocking but for `run`; safe to use from several threads."""

    books: Books
    witnesses: Sequence[Witness] = ()
    syslog: Path | None = None
    state: str = UNWITNESSED
    """how the ledger is witnessed, in one line for the panel; `look` sets it"""
    doubt: str = ""
    """two or three words for whoever asks whether the gateway is well; empty when there is none"""
    _watched: list[_Watched] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _published: int = -1
    """number of the newest row that was published"""
    _published_at: float = float("-inf")
    _began: float = field(default_factory=boot_time)
    _asked: bool = False

    def __post_init__(self) -> None:
        self._watched = [_Watched(witness) for witness in self.witnesses]

    @classmethod
    def of_house(cls, books: Books, outside: Outside) -> HeadKeeper:
        """With what there is outside. Raises `LedgerError` for a URL that will not do."""
        found: list[Witness] = []
        if outside.redis_url is not None:
            found.append(RedisWitness(outside.redis_url))
        if outside.witness_url is not None:
            found.append(UrlWitness(outside.witness_url))
        return cls(books, found, outside.syslog)

    # ── comparing ────────────────────────────────────────────────────────────────────────────────────

    def compare(self) -> None:
        """Asks all witnesses what they have seen; what they say is for `refuse`."""
        with self._lock:
            self._asked = True
            for watched in self._watched:
                self._ask(watched)

    def refuse(self) -> None:
        """Raises `WitnessError` when a witness has seen another ledger than is here."""
        if not self._watched:
            return
        if not self._asked:
            self.compare()
        for watched in self._watched:
            if fault := self._fault(watched):
                raise WitnessError(
                    f"{fault}, which {watched.witness.place} has seen: an older copy was restored. What was "
                    "revoked or erased since lives in it again, and cannot be known here. Put the newer "
                    "database back; if it is lost: voicegate ledger resume --help"
                )
        if not any(watched.compared for watched in self._watched) and boot_time() - self._began > AWAY_S:
            places = ", ".join(watched.witness.place for watched in self._watched)
            raise WitnessError(
                f"no witness of the ledger has answered for {AWAY_S / 3600:.0f} h ({places}); bring one "
                "back, or take it out of the settings"
            )

    def given_up(self) -> list[dict[str, Any]]:
        """Heads of witnesses, as asked now, that the ledger here does not have: for an auditor's act."""
        self.compare()
        lost = {found.head for found in self._watched if found.head is not None and self._fault(found)}
        return [{"seq": head.seq, "hash": head.hash, "at_ms": head.at_ms} for head in sorted(lost, key=_seq)]

    def heads(self) -> list[Head]:
        """What the witnesses have seen, as asked now, but for what was given up: to prove the ledger by."""
        self.compare()
        gone = self.books.look().given_up
        return [found.head for found in self._watched if found.head and found.head.hash not in gone]

    def _ask(self, watched: _Watched) -> None:
        """Reads what a witness keeps, and whether it is there."""
        watched.tried_at = boot_time()
        try:
            watched.kept = watched.witness.newest(self.books.ledger_id)
            watched.head = self._read(watched)
        except WitnessError as error:
            if watched.away_since is None:
                watched.away_since = boot_time()
                log.warning("ledger.witness_away", witness=watched.witness.place, error=str(error))
            return
        except LedgerError:
            return  # the ledger itself cannot be read: others say so
        watched.compared = True
        if watched.away_since is not None:
            away_s = round(boot_time() - watched.away_since, 1)
            watched.away_since = None
            log.info("ledger.witness_back", witness=watched.witness.place, away_s=away_s)

    def _read(self, watched: _Watched) -> Head | None:
        """The head in a token, by the office's signature; None for another ledger's, or nobody's."""
        strange, watched.strange = watched.strange, False
        if watched.kept is None:
            return None
        try:
            claims = _claims(watched.kept, GrantVerifier(self.books.keys.public), self.books)
            if claims.get("ledger", self.books.ledger_id) == self.books.ledger_id:
                return head_of(claims)
        except (GrantRefused, LedgerError):
            if self._by_a_revoked_key(watched.kept):
                return None  # no proof, and the next head takes its place
        watched.strange = True
        if not strange:
            log.error("ledger.witness_strange", witness=watched.witness.place)
        return None

    def _by_a_revoked_key(self, token: str) -> bool:
        try:
            GrantVerifier(self.books.keys.ever).claims(token, HEAD_TYP)
        except GrantRefused:
            return False
        return True

    def _fault(self, watched: _Watched) -> str | None:
        """What is missing here of what a witness has seen. Raises `LedgerError`."""
        head = watched.head
        if head is None or head == watched.found:
            return None
        standing = self.books.look()
        when = f"{datetime.fromtimestamp(head.at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        if head.hash not in standing.given_up:
            if head.seq > self.books.tip[0]:
                return f"the ledger ends at row {self.books.tip[0]}, before row {head.seq} of {when}"
            if self.books.reader.hash_of(head.seq) != head.hash:
                return f"the ledger's row {head.seq} is not the one of {when}"
        watched.found = head
        return None

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _due(self) -> bool:
        newest = self.books.tip[0]
        if newest == self._published:
            return False
        return self.books.loud > self._published or boot_time() - self._published_at >= PUBLISH_S

    def publish(self) -> None:
        """Has the head kept by every witness whose own is in this ledger, or was given up.

        Raises `LedgerError` when the ledger cannot be read.
        """
        with self._lock:
            self.books.look()
            seq, digest, _ = self.books.tip
            if not seq:
                return
            token, all_told = self.books.head(), True
            for watched in self._watched:
                self._ask(watched)
                if watched.away_since is not None or watched.strange or self._fault(watched):
                    continue
                if watched.head is not None and watched.head.seq >= seq and not self._gone(watched.head):
                    continue
                try:
                    if watched.witness.publish(self.books.ledger_id, token, watched.kept):
                        watched.kept, watched.head = token, Head(*self.books.tip)
                    else:
                        all_told = False  # another host came first: again, soon
                except WitnessError as error:
                    watched.away_since = boot_time()
                    log.warning("ledger.witness_away", witness=watched.witness.place, error=str(error))
            if self.syslog is not None:
                tell_syslog(token, seq, digest, self.syslog)
            self._asked = True
            if all_told:
                self._published, self._published_at = seq, boot_time()

    def _gone(self, head: Head) -> bool:
        return head.hash in self.books.standing.given_up

    def _missed(self, watched: _Watched) -> bool:
        """Whether a witness is back without the newest head."""
        if watched.away_since is not None or watched.strange:
            return False
        return watched.head is None or watched.head.seq < self._published

    def close(self) -> None:
        """Publishes what this process has written and nobody has published yet."""
        if self.books.wrote_loud:
            self.publish()

    def begin(self) -> None:
        """Asks all witnesses before the first voice is granted."""
        self.compare()
        self.look()

    def step(self) -> None:
        """What `run` does once a second; blocking."""
        self.books.look()
        if self._due:
            self.publish()
            return
        now = boot_time()
        if any(
            now - watched.tried_at >= (RETRY_S if watched.away_since is not None else PUBLISH_S)
            for watched in self._watched
        ):
            self.compare()
            if any(self._missed(watched) for watched in self._watched):
                self._published = -1

    async def run(self, told: Told = lambda _: None) -> None:
        """Publishes until cancelled; `told` hears of a new trouble, for an alarm."""
        known = ""
        while True:
            try:
                await asyncio.to_thread(self.step)
            except LedgerError as error:
                log.debug("ledger.head_not_published", error=str(error))  # grants say so aloud
            trouble = await asyncio.to_thread(self.look)
            if trouble and trouble != known:
                log.error("ledger.unwitnessed", why=trouble)
                told("ledger unwitnessed")
            known = trouble
            await asyncio.sleep(LOOK_S)

    # ── saying how it is ─────────────────────────────────────────────────────────────────────────────

    def look(self) -> str:
        """Sets `state` and `doubt`; returns what an operator should look at, empty for nothing. Blocking."""
        if not self._watched:
            return ""
        try:
            self.refuse()
        except LedgerError as error:
            self.state = str(error)
            self.doubt = "not as witnessed" if isinstance(error, WitnessError) else ""
            return self.state
        away = [watched.witness.place for watched in self._watched if watched.away_since is not None]
        strange = [watched.witness.place for watched in self._watched if watched.strange]
        said = [f"its witness {place} is away" for place in away]
        said += [f"{place} keeps a head that this office has not signed" for place in strange]
        places = ", ".join(watched.witness.place for watched in self._watched)
        self.state = "; ".join(said) or f"its head is kept by {places}"
        self.doubt = "witness away" if said else ""
        return "; ".join(said)


def _seq(head: Head) -> int:
    return head.seq


def _claims(token: str, verifier: GrantVerifier, books: Books) -> dict[str, Any]:
    """A head's verified claims, also where a key signed it that a restored copy does not know.

    A head carries the rows that put the office's later keys in force, each signed by the key before. Raises
    `GrantRefused`.
    """
    try:
        return verifier.claims(token, HEAD_TYP)
    except GrantRefused as refused:
        if refused.reason != "unknown_key":
            raise
    keys = dict(books.keys.public)
    try:
        for table in json.loads(unb64(token.split(".")[1]))["rotations"]:
            row = Row(**table)
            if row.kind == "key.rotated" and not row.edited and row.signed_by(keys):
                keys[row.table["kid"]] = Ed25519PublicKey.from_public_bytes(unb64(row.table["public"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise GrantRefused("tampered", "this is not a ledger head") from None
    return GrantVerifier(keys).claims(token, HEAD_TYP)
