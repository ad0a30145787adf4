"""A consent office for tests: real ledger, vault and signatures; human voices from Debian's prompts.

Doubles, all behind the seams of `consent.checks.checklist`, and named so: `PlannedSpeaker` (likeness as
planned), `PlannedRecogniser` (hears what it is told), `PlannedMark` (finds a mark or none),
`PlannedClassifier`. The real speaker model is used in `test_speaker.py`, the real recogniser in
`test_words.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from consent.checks.checklist import Checks
from consent.checks.sound import Floats, Recording, read
from consent.checks.synthetic import Synthetic
from consent.grants.scope import Scope
from consent.ledger.operators import OperatorKey
from consent.ledger.timekeeper import Timekeeper
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Reference
from consent.office.registration import Registered
from consent.office.rotation import Rotation
from consent.office.submission import Submission
from consent.statements.challenge import Challenge
from consent.statements.comparison import HeardText
from consent.statements.statement import Terms
from tests.gateway.conftest import Valkey, postgresql, short_folder, valkey  # noqa: F401  # fixtures of theirs
from tests.needs import need_sounds

BEGIN = 1_800_000_000.0


@cache
def prompt(name: str, voice: str = "en_US_f_Allison") -> Recording:
    """A human prompt, read once."""
    return read(need_sounds(voice) / f"{name}.wav")


@dataclass
class Clock:
    """A clock that tests set."""

    now: float = BEGIN

    def __call__(self) -> float:
        return self.now


@dataclass
class PlannedSpeaker:
    """Double: every second recording has the planned likeness to the one before."""

    likeness: float = 0.95
    name: str = "planned"
    same: float = 0.80
    other: float = 0.65
    one_voice: bool = True
    _calls: int = 0

    def windows(self, speech_16k: Floats) -> Floats:
        self._calls += 1
        vectors = np.zeros((8, 256), np.float32)
        if self._calls % 2:
            vectors[:, 0] = 1.0
        else:
            vectors[:, :2] = self.likeness, np.sqrt(1 - self.likeness**2)
        if not self.one_voice:
            vectors[4:, :2], vectors[4:, 2:4] = 0.0, (0.2, np.sqrt(1 - 0.04))
        return vectors


@dataclass
class PlannedRecogniser:
    """Double: hears `says`, whatever was spoken; unset, the newest challenge's statement word for word."""

    says: str | None = None
    name: str = "planned"
    newest: str = ""

    def transcribe(self, pcm_16k: Floats, language: str) -> HeardText:
        return HeardText(self._said)

    def log_likelihoods(
        self, pcm_16k: Floats, language: str, piece: int, texts: Sequence[str]
    ) -> list[float]:
        """Nothing fits the sound but what it hears."""
        return [0.0 if text == self._said else -1000.0 for text in texts]

    @property
    def _said(self) -> str:
        return self.newest if self.says is None else self.says


@dataclass
class PlannedMark:
    """Double of the watermark's detector: finds a mark in recordings of this many samples."""

    marked: set[int] = field(default_factory=set)
    name: str = "planned"
    proves_human: bool = False

    def examine(self, pcm: Floats) -> Synthetic:
        found = len(pcm) in self.marked
        return Synthetic(found, "this gateway's own mark is in it" if found else "no mark of this gateway")


@dataclass
class PlannedClassifier:
    """Double: says what it is told."""

    found: bool | None = False
    name: str = "planned"
    proves_human: bool = True

    def examine(self, pcm: Floats) -> Synthetic:
        return Synthetic(self.found, "a machine's voice" if self.found else "nothing found")


@dataclass
class Desk:
    """An office with alice (registrar), bob (reviewer), rosa (reviewer), carol (auditor)."""

    office: ConsentOffice
    clock: Clock
    keys: dict[str, OperatorKey]
    open_again: Callable[[], ConsentOffice]

    TERMS = Terms("Jane Doe", "Acme", ("support", "booking"), ("en",), date(2027, 6, 30))

    @property
    def checks(self) -> Checks:
        return self.office.checks

    def act(self, who: str, what: str, **about: object) -> str:
        return self.keys[who].act(what, self.clock.now, self.office.identity, **about)

    def confirm(self, who: str = "alice") -> Callable[[Mapping[str, object]], str]:
        """How a registrar signs what the checks found."""
        return lambda found: self.act(who, "confirm", **found)

    def rotate(self, which: str, who: str = "alice", office: ConsentOffice | None = None) -> str | int:
        """Puts a new signing or master key in force."""
        chosen = office or self.office
        rotation = Rotation(chosen.books, chosen.vault)
        if which == "signing":
            return rotation.signing(self.act(who, "rotate", **rotation.next_signing()))
        return rotation.master(self.act(who, "rotate", **rotation.next_master()))

    def resume(self, office: ConsentOffice, who: str = "carol") -> list[str]:
        """Goes on with a restored ledger."""
        return office.resume_ledger(
            "restored", self.act(who, "resume", **office.resume_terms(office.heads.given_up()))
        )

    def challenge(self, terms: Terms = TERMS, **given: object) -> Challenge:
        by_phone = bool(given.get("by_phone", False))
        act = self.act("alice", "challenge", terms=terms.hash("salt"), by_phone=by_phone)
        return self.office.registrar.challenge(terms, act, salt="salt", **given)  # type: ignore[arg-type]

    def submission(self, challenge: Challenge | None = None, **given: object) -> Submission:
        chosen = challenge or self.challenge()
        if isinstance(self.checks.recogniser, PlannedRecogniser):
            self.checks.recogniser.newest = chosen.statement.text
        values: dict[str, object] = {
            "handle": "jane",
            "references": (Reference(prompt("demo-congrats"), "Congratulations!"),),
            "statement": prompt("basic-pbx-ivr-main"),
            "challenge_id": chosen.challenge_id,
            "adult": True,
        }
        return Submission(**{**values, **given})  # type: ignore[arg-type]

    def submit(self, submission: Submission | None = None, **given: object) -> Registered:
        """Registers as alice."""
        chosen = submission or self.submission(**given)  # type: ignore[arg-type]
        act = self.act("alice", "register", **chosen.digest)
        return self.office.registrar.submit(chosen, act, confirm=self.confirm())

    def listen(self, who: str, handle: str = "jane") -> dict[str, Floats]:
        standing = self.office.standing_of(handle)
        assert standing is not None
        return self.office.reviews.listen(handle, self.act(who, "listen", voice_id=standing.voice_id))

    def review(self, who: str = "bob", decision: str = "approve", handle: str = "jane") -> str:
        """Listens and decides."""
        standing = self.office.standing_of(handle)
        assert standing is not None
        self.listen(who, handle)
        act = self.act(
            who, "review", voice_id=standing.voice_id, record_hash=standing.record_hash, decision=decision
        )
        return self.office.reviews.review(handle, act)

    def jane(self, **given: object) -> Registered:
        """A voice that may be used."""
        done = self.submit(**given)
        self.review(handle=done.handle)
        return done

    def grant(self, **given: str) -> object:
        scope = {"voice": "jane", "purpose": "support", "dialplan": "demo", "language": "en", "call_id": "c1"}
        return self.office.grant(Scope(**{**scope, **given}))

    def kinds(self) -> list[str]:
        return [row.kind for row in self.office.books.reader.rows()]


@pytest.fixture
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, or by `@both_databases` also a fresh schema in a real PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path}/data/voicegate.db"
    server = str(request.getfixturevalue("postgresql"))
    name = f"t{next(NUMBERS)}"
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    return f"{server}&options=-csearch_path%3D{name}"


NUMBERS = itertools.count()
both_databases = pytest.mark.parametrize("sql_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def desk(tmp_path: Path, sql_url: str) -> Iterator[Desk]:
    clock = Clock()

    def open_office() -> ConsentOffice:
        # time really passes for this house: the clock that nobody sets goes with the one that tests set
        keeper = Timekeeper(clock, boot=clock)
        checks = Checks(PlannedSpeaker(), PlannedRecogniser(), PlannedMark(), PlannedClassifier())
        return ConsentOffice.open(sql_url, tmp_path / "data" / "consent", checks=checks, clock=keeper)

    office = open_office()
    keys: dict[str, OperatorKey] = {}
    people = (("alice", "registrar"), ("bob", "reviewer"), ("carol", "auditor"))
    for name, role in people:
        keys[name] = OperatorKey.make(name)
        OperatorDesk(office.books).add(name, role, keys[name].public, None)
    keys["rosa"] = OperatorKey.make("rosa")
    act = keys["bob"].act(
        "operator", clock.now, office.identity, name="rosa", role="reviewer", public=keys["rosa"].public
    )
    OperatorDesk(office.books).add("rosa", "reviewer", keys["rosa"].public, act)
    yield Desk(office, clock, keys, open_office)
    office.close()


@pytest.fixture
def needs_review(desk: Desk) -> Desk:
    """The desk without recogniser and classifier, as a fresh installation is."""
    desk.checks.recogniser = None
    desk.checks.classifier = None
    return desk
