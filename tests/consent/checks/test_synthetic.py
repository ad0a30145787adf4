"""Our own watermark as the synthetic-speech check, with the real detector where this tree has it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from consent.checks.checklist import Checks
from consent.checks.sound import of_call
from consent.checks.synthetic import OwnMark, load_classifier
from consent.errors import RegistrationError
from tests.consent.conftest import Desk, PlannedClassifier, prompt
from watermark.keys import KeyRing
from watermark.mark import MarkerBank
from watermark.payload import call_payload


def marked(ring: KeyRing) -> np.ndarray:
    """Human speech as the gateway would have sent it."""
    pcm = prompt("demo-congrats").pcm[: 24_000 * 12]
    bank = MarkerBank(ring.current)
    slots = np.array([bank.open(call_payload(ring.current, "c1"))])
    frames = [bank.mark(slots, pcm[None, at : at + 480])[0] for at in range(0, len(pcm) - 479, 480)]
    return np.concatenate([frame.samples for frame in frames])  # type: ignore[union-attr]  # no error in these


def test_a_statement_that_this_gateway_spoke_is_refused(desk: Desk, tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "marks")
    desk.checks.own_mark = OwnMark(tmp_path / "marks")
    with pytest.raises(RegistrationError, match="own mark is in it") as refusal:
        desk.submit(statement=of_call("spoken by us", marked(ring), 24_000))
    assert refusal.value.check == "own watermark"


def test_human_speech_carries_no_mark(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "marks")
    assert OwnMark(tmp_path / "marks").examine(prompt("basic-pbx-ivr-main").pcm).found is False


def test_without_keys_it_cannot_tell(tmp_path: Path) -> None:
    assert OwnMark(tmp_path / "none").examine(prompt("demo-congrats").pcm).found is None


async def test_a_statement_read_by_our_own_engine_without_its_mark_is_held_at_least(
    needs_review: Desk,
) -> None:
    """The engine's sound straight from its mouth: what a thief of the engine's process would have."""
    from model.embedded.mouth import Mouth

    desk = needs_review
    challenge = await asyncio.to_thread(desk.challenge)
    pieces = [sound async for _, sound in Mouth().speak(challenge.statement.text)]
    spoken = of_call("read by a machine", np.concatenate(pieces), 24_000)
    done = await asyncio.to_thread(partial(desk.submit, challenge=challenge, statement=spoken))
    assert done.state == "pending"


def test_a_classifier_is_loaded_by_its_name() -> None:
    assert load_classifier("tests.consent.conftest:PlannedClassifier").name == PlannedClassifier().name
    for wrong in ("nonsense", "no.such:thing", "tests.consent.conftest:BEGIN", "builtins:dict"):
        with pytest.raises(ValueError, match="classifier"):
            load_classifier(wrong)


def test_the_checks_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "checks.toml"
    path.write_text('classifier = "tests.consent.conftest:PlannedClassifier"\n')
    assert Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models").classifier is not None
    for wrong in ("recognizer = 1", "recogniser = 1", "not toml", 'classifier = "no.such:thing"'):
        path.write_text(wrong)
        with pytest.raises(RegistrationError):
            Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models")
