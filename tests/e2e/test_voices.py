"""A person's voice on real calls: taken back by its owner in the middle of a word, and given by telephone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consent.checks.checklist import Checks
from consent.ledger.operators import OperatorKey
from consent.office.enrolment import by_code
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Reference
from consent.office.registration import Submission
from consent.statements.statement import Terms
from gateway.cli.testphone import CallReport, place_call
from tests.consent.conftest import (
    PlannedClassifier,
    PlannedMark,
    PlannedRecogniser,
    PlannedSpeaker,
    prompt,
)
from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import House
from tests.needs import goldens

pytestmark = pytest.mark.e2e

Say = Callable[[str], Path]

PIN = "481516"
TERMS = Terms("Jane Doe", "Acme", ("support",), ("en",), date(date.today().year + 1, 6, 30))
LINES = "\n".join(f'  {{ verb = "say", text = "Sentence {number} of many." }},' for number in range(1, 16))
PLANS = """
[[route]]
name = "jane"
called = ["jane"]
voice = "jane"
purpose = "support"
without_voice = "hangup"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
@LINES@
]

[[route]]
name = "owner"
called = ["owner"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "voice_owner", voice = "jane", ask_pin = "PIN?", offer = "Nine?", confirm = "PIN?" },
]

[[route]]
name = "enroll"
called = ["enroll"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "enroll", begin = "Repeat after me." },
]
"""


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
        self.office.registrar.listen(handle, self.act("bob", "listen", voice_id=standing.voice_id))
        about = {"voice_id": standing.voice_id, "record_hash": standing.record_hash}
        self.office.registrar.review(handle, self.act("bob", "review", decision="approve", **about))


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "voices.toml").write_text(PLANS.replace("@LINES@", LINES))
    return folder


@pytest.mark.long("two calls in real time: the owner's, and the one that falls silent")
def test_an_owner_takes_the_voice_back_by_telephone(tmp_path: Path, plans: Path) -> None:
    golden = goldens() / "chroma-a"
    house = House(
        tmp_path / "house",
        dialplans=plans,
        engine="chroma",
        chroma=golden,
        chroma_reply_s=2.0,
        engine_calls=4,
    )
    house.folder.mkdir()
    house.folder.joinpath("data").mkdir(mode=0o700)
    office = Office(house.folder)
    office.register_jane()
    house.start()
    try:
        record = tmp_path / "heard.wav"
        reports: list[CallReport] = []
        uri = house.uri.replace("demo", "jane")
        calling = threading.Thread(
            target=lambda: reports.append(place_call(uri, record=record, duration_s=60))
        )
        calling.start()
        house.wait_for("jane's call", lambda: any(c["state"] == "confirmed" for c in house.calls()), 20)
        (jane,) = house.calls()
        assert jane["voice"] == "jane"
        place_call(
            house.uri.replace("demo", "owner"),
            script=[f"{PIN}#", "9", f"{PIN}#"],
            duration_s=45,
            codec="g722",
        )
        calling.join(60)
        events = {
            call["route"]: house.get(f"/api/calls/{call['call_id']}")["events"] for call in house.calls()
        }
        (revoked,) = [event for event in events["owner"] if event["kind"] == "owner_revoked"]
        assert revoked["data"]["revoked"] is True
        (muted,) = [event for event in events["jane"] if event["kind"] == "muted"]
        assert muted["data"]["reason"] == "revoked"
        assert muted["at"] - revoked["at"] <= 1.0
        (how,) = [call["how"] for call in house.calls() if call["route"] == "jane"]
        assert how == "failed: the voice may not be used: revoked"
        assert "they hung up" in reports[0].ended
        heard = loudness(record)
        heard_s = np.sum(heard > 0.005) * 0.02
        assert 1.0 < heard_s < 24.0, "the voice was heard, and then it was not, though there was more to say"
        assert not np.any(heard[-100:] > 0.005), "silence follows, whatever was being said"
        again = place_call(uri, duration_s=5)
        assert not again.answered
        assert "480" in again.ended
    finally:
        house.stop()
        office.office.close()


@pytest.fixture
def enrolling(tmp_path: Path, plans: Path) -> Iterator[tuple[House, Office]]:
    house = House(tmp_path / "house", dialplans=plans)
    house.folder.mkdir()
    house.folder.joinpath("data").mkdir(mode=0o700)
    office = Office(house.folder)
    house.start()
    try:
        yield house, office
    finally:
        house.stop()
        office.office.close()


@pytest.mark.long("a person repeats sentence after sentence, in real time")
def test_a_person_gives_their_voice_by_telephone(enrolling: tuple[House, Office], say: Say) -> None:
    house, office = enrolling
    challenge = office.challenge(by_phone=True)
    lines = [say(line.say) for line in by_code(office.office, challenge.challenge_id).lines]
    report = place_call(
        house.uri.replace("demo", "enroll"),
        script=[challenge.challenge_id, *lines, f"{PIN}#"],
        duration_s=420,
        codec="g722",
    )
    assert "they hung up" in report.ended, report.ended
    (call,) = house.calls()
    events = house.get(f"/api/calls/{call['call_id']}")["events"]
    (enrolled,) = [event for event in events if event["kind"] == "enrolled"]
    voice = enrolled["data"].get("voice")
    assert voice, events
    standing = office.office.standing_of(voice)
    assert standing is not None
    assert standing.state == "pending", "two people listen before it may be used"
    assert PIN not in house.log_path.read_text(), "a PIN is in no log"
