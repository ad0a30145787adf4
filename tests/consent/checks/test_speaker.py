"""The real speaker model on human voices; without its weights these tests say so."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from consent.checks.checklist import TWO_SPEAKERS, halves_alike
from consent.checks.sound import RATE_HZ, of_call
from consent.checks.speaker import (
    GE2E,
    SAME,
    WEIGHTS,
    SpeakerUnavailable,
    _Unpickler,
    mel_power,
    similarity,
    voiceprint,
)
from consent.errors import RegistrationError
from consent.office.record import Reference
from tests.consent.conftest import Desk, prompt
from tests.needs import need_model


@pytest.fixture(scope="module")
def model() -> GE2E:
    return GE2E.load(need_model("speaker"))


def test_one_persons_recordings_are_alike_and_anothers_are_not(model: GE2E) -> None:
    allison = voiceprint(model.windows(prompt("demo-congrats").speech_16k))
    again = voiceprint(model.windows(prompt("basic-pbx-ivr-main").speech_16k))
    carlo = voiceprint(model.windows(prompt("demo-congrats", "it_IT_m_Carlo").speech_16k))
    assert similarity(allison, again) >= SAME
    assert similarity(allison, carlo) < SAME - 0.05
    assert np.linalg.norm(allison) == pytest.approx(1.0, abs=1e-5)


def test_two_voices_in_one_recording_are_heard(model: GE2E) -> None:
    one, other = prompt("demo-congrats").pcm, prompt("demo-congrats", "it_IT_m_Carlo").pcm
    both = of_call("both", np.concatenate((one[: 8 * RATE_HZ], other[: 8 * RATE_HZ])), 8_000)
    alone = of_call("alone", one[: 16 * RATE_HZ], 8_000)
    assert halves_alike(model.windows(both.speech_16k)) < TWO_SPEAKERS[1], "held or refused, never passed"
    assert halves_alike(model.windows(alone.speech_16k)) >= TWO_SPEAKERS[1]


def test_the_attacks_with_other_peoples_voices_are_never_passed(desk: Desk, model: GE2E) -> None:
    """With the real model: another person's statement, another person's reference, two people in one."""
    desk.checks.speaker = model
    carlo = prompt("demo-congrats", "it_IT_m_Carlo")
    june = prompt("demo-congrats", "fr_CA_f_June").pcm[: 12 * RATE_HZ]
    both = of_call("two", np.concatenate((prompt("vm-options").pcm[: 12 * RATE_HZ], june)), 8_000)
    ends = []
    for handle, statement, mine in (("other", carlo, "demo-congrats"), ("two", both, "conf-adminmenu")):
        references = (Reference(prompt(mine), "text"),)
        try:
            done = desk.submit(handle=handle, statement=statement, references=references)
            ends.append(
                "pending" if any(finding.verdict == "review" for finding in done.findings) else "passed"
            )
        except RegistrationError as refusal:
            ends.append(refusal.check)
    assert set(ends) <= {"pending", "same speaker", "one speaker"}


def test_one_persons_registration_passes_with_the_real_model(desk: Desk, model: GE2E) -> None:
    desk.checks.speaker = model
    assert {finding.verdict for finding in desk.submit().findings} == {"passed"}
    assert desk.review() == "active"


def test_a_short_utterance_still_has_a_voiceprint(model: GE2E) -> None:
    assert voiceprint(model.windows(prompt("demo-congrats").speech_16k[:8_000])).shape == (256,)


def test_the_mel_spectrogram_puts_a_tone_where_it_belongs() -> None:
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    bands = mel_power(tone)
    assert bands.shape == (101, 40)
    assert bands[50].argmax() == pytest.approx(14, abs=1)  # 1 kHz is mel 15 of 45.2, in 41 steps: band 13


def test_weights_that_are_away_or_not_the_known_ones_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpeakerUnavailable, match="voicegate models get speaker"):
        GE2E.load(tmp_path)
    (weights,) = WEIGHTS.paths(tmp_path)
    weights.write_bytes(bytes(WEIGHTS.size))
    monkeypatch.setattr("consent.checks.speaker._read_checkpoint", lambda file: pytest.fail("it was parsed"))
    with pytest.raises(SpeakerUnavailable, match=r"is not the file that models\.lock names"):
        GE2E.load(tmp_path)


def test_a_checkpoint_that_wants_to_run_something_is_refused() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("pwned",))

    with pytest.raises(pickle.UnpicklingError, match="no business"):
        _Unpickler(io.BytesIO(pickle.dumps(Evil()))).load()
