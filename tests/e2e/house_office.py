"""A gateway's consent office for tests of whole gateways: two operators, and Jane, who gave her voice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from consent.checks.checklist import Checks
from consent.ledger.operators import OperatorKey
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Reference
from consent.office.submission import Submission
from consent.statements.statement import Terms
from tests.consent.conftest import (
    PlannedClassifier,
    PlannedMark,
    PlannedRecogniser,
    PlannedSpeaker,
    prompt,
)
from tests.e2e.gateway_process import House

PIN = "481516"
TERMS = Terms("Jane Doe", "Acme", ("support",), ("en",), date(date.today().year + 1, 6, 30))
LINES = "\n".join(f'  {{ verb = "say", text = "Sentence {number} of many." }},' for number in range(1, 16))
JANE_SPEAKS = f"""
[[route]]
name = "jane"
called = ["jane"]
voice = "jane"
purpose = "support"
without_voice = "hangup"
do = [
  {{ verb = "answer" }},
  {{ verb = "disclose", principal = "Lindens", language = "en" }},
{LINES}
]
"""
"""A route on which Jane's voice says sentence after sentence."""


class Office:
    """The consent office of a house, with two operators. Its checks are doubles (see conftest)."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the house's."""
        data = folder / "data"
        checks = Checks(PlannedSpeaker(), PlannedRecogniser(), PlannedMark(), PlannedClassifier())
        self.office = ConsentOffice.open(
            f"sqlite:///{data / 'voicegate.db'}", data / "consent", checks=checks
        )
        self._keys = {name: OperatorKey.make(name) for name in ("alice", "bob")}
        for name, role in (("alice", "registrar"), ("bob", "reviewer")):
            OperatorDesk(self.office.books).add(name, role, self._keys[name].public, None)

    def act(self, who: str, what: str, **about: object) -> str:
        return self._keys[who].act(what, time.time(), self.office.identity, **about)

    def challenge(self, *, by_phone: bool) -> Any:
        act = self.act("alice", "challenge", terms=TERMS.hash("salt"), by_phone=by_phone)
        return self.office.registrar.challenge(TERMS, act, salt="salt", by_phone=by_phone)

    def register_jane(self, handle: str = "jane", words: str = "More about it.") -> None:
        challenge = self.challenge(by_phone=False)
        recogniser = self.office.checks.recogniser
        assert isinstance(recogniser, PlannedRecogniser)
        recogniser.newest = challenge.statement.text
        submission = Submission(
            handle=handle,
            references=(Reference(prompt("demo-moreinfo"), words),),
            statement=prompt("basic-pbx-ivr-main"),
            challenge_id=challenge.challenge_id,
            adult=True,
            pin=PIN,
        )
        self.office.registrar.submit(
            submission,
            self.act("alice", "register", **submission.digest),
            confirm=lambda found: self.act("alice", "confirm", **found),
        )
        standing = self.office.standing_of(handle)
        assert standing is not None
        self.office.reviews.listen(handle, self.act("bob", "listen", voice_id=standing.voice_id))
        about = {"voice_id": standing.voice_id, "record_hash": standing.record_hash}
        self.office.reviews.review(handle, self.act("bob", "review", decision="approve", **about))


def house_with_office(folder: Path, plans: str, **settings: Any) -> tuple[House, Office]:
    """A gateway in `folder`, not started yet, that follows `plans` (TOML), and its office."""
    dialplans = folder / "plans"
    dialplans.mkdir()
    (dialplans / "plans.toml").write_text(plans)
    house = House(folder / "house", dialplans=dialplans, **settings)
    (house.folder / "data").mkdir(mode=0o700, parents=True)
    return house, Office(house.folder)


@contextmanager
def running(house: House, office: Office) -> Iterator[None]:
    """Starts the gateway, and stops it and closes its office at the end."""
    try:
        house.start()
        yield
    finally:
        house.stop()
        office.office.close()
