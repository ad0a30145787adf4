"""What is heard in the place of what was lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.rtp.media.concealment import LONGEST_S, Concealment, past_samples

RATES = [8_000, 16_000]


def vowel(rate_hz: int, pitch_hz: float, seconds: float = 0.5) -> NDArray[np.int16]:
    """A sound with the periods of a voice."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    sound = sum(np.sin(2 * np.pi * pitch_hz * k * time + k * k) / k for k in range(1, 12))
    return (4000 * np.asarray(sound)).astype(np.int16)


def loudness(sound: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("pitch_hz", [80, 125, 160, 200])
def test_the_first_ten_milliseconds_go_on_as_the_voice_would(rate_hz: int, pitch_hz: float) -> None:
    voice, size = vowel(rate_hz, pitch_hz), past_samples(rate_hz)
    heard, next_ = voice[:size], voice[size : size + rate_hz // 100].astype(np.float64)
    made = Concealment(rate_hz).conceal(heard, rate_hz // 100).astype(np.float64)
    # the beginning is blended with what was heard backwards, for a quarter of what was found to repeat
    quarter = round(LONGEST_S * rate_hz / 4)
    error = made[quarter:] - next_[quarter:]
    assert np.mean(error**2) < 0.1 * np.mean(next_[quarter:] ** 2)


@pytest.mark.parametrize("rate_hz", RATES)
def test_there_is_no_click_where_it_begins_and_where_it_ends(rate_hz: int) -> None:
    voice, size, frame = vowel(rate_hz, 110), past_samples(rate_hz), rate_hz // 50
    hidden = Concealment(rate_hz)
    parts = [voice[:size], hidden.conceal(voice[:size], frame), hidden.conceal(voice[:size], frame)]
    after = voice[size + 2 * frame :]
    whole = np.concatenate((*parts, hidden.resume(after))).astype(np.int64)
    usual = np.abs(np.diff(voice.astype(np.int64))).max()
    assert np.abs(np.diff(whole)).max() < 1.5 * usual


@pytest.mark.parametrize("rate_hz", RATES)
def test_it_fades_to_nothing_within_sixty_milliseconds(rate_hz: int) -> None:
    voice, size = vowel(rate_hz, 125), past_samples(rate_hz)
    hidden = Concealment(rate_hz)
    steps = [loudness(hidden.conceal(voice[:size], rate_hz // 100)) for _ in range(8)]
    assert steps[0] > 0.8 * loudness(voice)
    assert steps[6:] == [0.0, 0.0]
    assert steps[1] > steps[2] > steps[3] > steps[4] > steps[5]


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_voice_that_changes_is_met_better_from_both_sides_than_from_one(rate_hz: int) -> None:
    time = np.arange(rate_hz) / rate_hz
    turns = 2 * np.pi * (100 * time + 60 * time**2)  # the pitch rises from 100 to 220 Hz
    tones = sum(np.sin(k * turns + k * k) / k for k in range(1, 12))
    voice = (4000 * np.asarray(tones) * (1 + np.sin(2 * np.pi * 3 * time)) / 2).astype(np.int16)
    size, frame = past_samples(rate_hz), rate_hz // 50
    errors = np.zeros(2)
    for at in range(size, len(voice) - 3 * frame, 7 * frame):
        past, gap, future = voice[at - size : at], voice[at : at + frame], voice[at + frame :]
        hidden = Concealment(rate_hz)
        both = hidden.bridge(past, future, frame)
        assert hidden.lost == 0
        one = Concealment(rate_hz).conceal(past, frame)
        errors += [np.mean((made - gap.astype(np.float64)) ** 2) for made in (both, one)]
    assert errors[0] < 0.8 * errors[1]


def test_a_longer_loss_ends_with_a_bridge() -> None:
    voice, size, frame = vowel(8_000, 125), past_samples(8_000), 160
    hidden = Concealment(8_000)
    parts = [voice[:size], hidden.conceal(voice[:size], frame)]
    parts.append(hidden.bridge(voice[:size], voice[size + 2 * frame :], frame))
    whole = np.concatenate((*parts, voice[size + 2 * frame :])).astype(np.int64)
    assert len(whole) == len(voice)
    assert np.abs(np.diff(whole)).max() < 1.5 * np.abs(np.diff(voice.astype(np.int64))).max()


def test_what_was_silent_stays_silent() -> None:
    silence = np.zeros(past_samples(8_000), np.int16)
    assert not Concealment(8_000).conceal(silence, 400).any()


def test_real_sound_is_itself_again_after_ten_milliseconds() -> None:
    voice, size = vowel(8_000, 125), past_samples(8_000)
    hidden = Concealment(8_000)
    hidden.conceal(voice[:size], 480)
    after = voice[size + 480 : size + 640]
    resumed = hidden.resume(after)
    assert np.array_equal(resumed[80:], after[80:])
    assert hidden.lost == 0


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
    st.sampled_from(RATES),
    st.sampled_from([0, 1, 300, 32_767]),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_length_are_together_what_one_would_be(
    counts: list[int], seed: int, rate_hz: int, peak: int
) -> None:
    chance = np.random.default_rng(seed)
    past = chance.integers(-peak, peak + 1, past_samples(rate_hz)).astype(np.int16)
    whole = Concealment(rate_hz).conceal(past, sum(counts))
    hidden = Concealment(rate_hz)
    pieces = np.concatenate([hidden.conceal(past, count) for count in counts])
    assert len(whole) == sum(counts)
    assert np.array_equal(whole, pieces)
