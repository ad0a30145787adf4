"""A person's voice on real calls: taken back by its owner in the middle of a word, and given by telephone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from consent.models.model_files import locked_model
from consent.office.enrolment import by_code
from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.testphone import place_call
from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import House
from tests.e2e.house_office import JANE_SPEAKS, PIN, Office, house_with_office, running
from tests.needs import MODELS, goldens

pytestmark = pytest.mark.e2e

Say = Callable[[str], Path]

PLANS = (
    JANE_SPEAKS
    + """
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
)


@pytest.mark.long("two calls in real time: the owner's, and the one that falls silent")
def test_an_owner_takes_the_voice_back_by_telephone(tmp_path: Path) -> None:
    house, office = house_with_office(
        tmp_path,
        PLANS,
        engine="chroma",
        chroma=goldens() / "chroma-a",
        chroma_reply_s=2.0,
        engine_calls=4,
    )
    office.register_jane()
    with running(house, office):
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


@pytest.fixture
def enrolling(tmp_path: Path) -> Iterator[tuple[House, Office]]:
    """Here nobody fetched what hears statements: a synthesizer's words may be misheard, so people judge."""
    models = tmp_path / "models"
    models.mkdir()
    for path in locked_model("speaker").paths(MODELS):
        (models / path.name).symlink_to(path)
    house, office = house_with_office(tmp_path, PLANS, models=models)
    with running(house, office):
        yield house, office


@pytest.mark.prove
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
