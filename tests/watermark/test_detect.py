from typing import Any

import numpy as np
import pytest
import soxr

from tests.watermark.channels import through
from watermark import carrier
from watermark.detect import detect
from watermark.errors import SoundError
from watermark.keys import BOTH_LAYERS, CARRIER_ALONE, KeyRing, MarkKey
from watermark.mark import MarkerBank
from watermark.payload import call_payload

CHANNELS = ["clean", "G.711 mu", "G.711 A", "G.722", "Opus 16k", "44.1 kHz"]
CHANNELS += ["+12 dB", "-12 dB", "+100 ppm", "300-3400 Hz", "20 dB noise"]
HARD = ["GSM", "AMR 12.2"]


def marked(
    key: MarkKey, payload: int, samples: np.ndarray, from_hop: int = 0, rate_hz: int = 24_000
) -> np.ndarray:
    bank = MarkerBank(key, rate_hz)
    slot = np.array([bank.open(payload)])
    bank.rest(slot, from_hop)
    whole = len(samples) // (rate_hz // 100) * (rate_hz // 100)
    (frame,) = bank.mark(slot, samples[None, :whole])
    return frame.samples


@pytest.fixture(scope="module")
def call(key: MarkKey) -> int:
    return call_payload(key, "a call")


@pytest.fixture(scope="module")
def spoken(key: MarkKey, call: int, speech: np.ndarray) -> np.ndarray:
    """12 s of marked speech, 100 s into the call."""
    return marked(key, call, speech, from_hop=10_000)


@pytest.mark.parametrize("channel", CHANNELS)
def test_five_seconds_name_their_call(
    channel: str, ring: KeyRing, key: MarkKey, call: int, spoken: np.ndarray
) -> None:
    sound, rate_hz = through(spoken[3 * 24_000 : 8 * 24_000], 24_000, channel)
    found = detect(sound, rate_hz, ring)
    assert found.detected
    assert (found.payload, found.key_id) == (call, key.id)
    assert found.call_s == pytest.approx(103.0 + found.starts_s, abs=0.06)  # codecs delay
    assert len(found.scores) == -(-len(sound) // rate_hz)
    assert sum(found.scores) > 10


@pytest.mark.parametrize("channel", HARD)
def test_ten_seconds_are_enough_for_a_mobile_phone(
    channel: str, key: MarkKey, call: int, spoken: np.ndarray
) -> None:
    sound, rate_hz = through(spoken[: 10 * 24_000], 24_000, channel)
    assert detect(sound, rate_hz, [key]).payload == call


def test_human_speech_at_its_own_rate(key: MarkKey, call: int, prompt: tuple[np.ndarray, int]) -> None:
    samples, rate_hz = prompt
    sound = marked(key, call, samples, 77, rate_hz)[: 5 * rate_hz]
    assert detect(sound, rate_hz, [key]).payload == call


def test_the_pilot_alone_says_ours_where_the_data_cannot_be_read(
    key: MarkKey, call: int, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_chips, chance = carrier.call_chips, np.random.default_rng(1)

    def without_data(*arguments: Any) -> np.ndarray:
        chips = true_chips(*arguments)
        chips[:, carrier.DATA] *= chance.choice(np.float32([-1, 1]), (len(chips), carrier.DATA_BINS))
        return chips

    monkeypatch.setattr(carrier, "call_chips", without_data)
    sound = marked(key, call, speech[: 10 * 24_000])
    found = detect(sound, 24_000, [key])
    assert found.detected
    assert found.payload is None
    assert not detect(sound, 24_000, [key], payloads=[call]).detected


def test_unmarked_speech_is_not_ours(ring: KeyRing, speech: np.ndarray) -> None:
    found = detect(speech[: 10 * 24_000], 24_000, ring)
    assert not found.detected
    assert found.payload is None
    assert found.p_value == 1.0
    assert found.confidence == 0.0


def test_another_key_sees_nothing(key: MarkKey, spoken: np.ndarray) -> None:
    other = MarkKey(key.id, key.gateway, bytes(32))
    assert not detect(spoken[: 10 * 24_000], 24_000, [other]).detected


def test_verifying_tells_this_call_from_others(key: MarkKey, call: int, spoken: np.ndarray) -> None:
    sound = spoken[: 5 * 24_000]
    assert detect(sound, 24_000, [key], payloads=[call]).detected
    assert detect(sound, 24_000, [key], payloads=[call], call_s=(95, 105)).call_s == 100.0
    for wrong in (call ^ 1, call ^ 1 << 47, call_payload(key, "another call")):
        assert not detect(sound, 24_000, [key], payloads=[wrong]).detected
        assert not detect(sound, 24_000, [key], payloads=[wrong], call_s=(0, 600)).detected
    some = [call_payload(key, f"call {n}") for n in range(3)]
    assert detect(sound, 24_000, [key], payloads=[*some, call]).payload == call
    assert not detect(sound, 24_000, [key], payloads=[call], call_s=(300, 400)).detected


@pytest.mark.parametrize("strange", [-1, 1 << 64])
def test_a_payload_of_more_than_64_bits_is_refused(
    key: MarkKey, call: int, spoken: np.ndarray, strange: int
) -> None:
    with pytest.raises(ValueError, match=f"payload {strange}: a payload has 64 bits"):
        detect(spoken[: 2 * 24_000], 24_000, [key], payloads=[call, strange])


def test_a_call_that_cannot_be_named_is_found_among_many(key: MarkKey, call: int, spoken: np.ndarray) -> None:
    """Speech so muffled that its pilot is whole and little is left of its data. To be one of 2,001 calls
    takes a score of 7.6, to be named of 2^48 one of 9.7. Scores rise with the length: the part is taken whose
    score lies best between the two, whatever the synthesizer's last bits are."""
    muffled, rate_hz = through(spoken, 24_000, "below 1500 Hz")

    def score(part: np.ndarray) -> float:
        return detect(part, rate_hz, [key], payloads=[call], call_s=(99, 113)).score

    parts = [muffled[-tenths * rate_hz // 10 :] for tenths in range(90, 34, -5)]
    sound = min(parts, key=lambda part: abs(score(part) - 8.65))
    assert detect(sound, rate_hz, [key]).payload is None
    others = [call_payload(key, f"call {n}") for n in range(2_000)]
    found = detect(sound, rate_hz, [key], payloads=[*others, call])
    assert found.detected
    assert found.payload == call
    began_s = 112.0 - len(sound) / rate_hz
    assert found.call_s == pytest.approx(began_s + (found.starts_s or 0.0), abs=0.06)
    alone = detect(sound, rate_hz, [key], payloads=[call])
    assert found.ln_p - alone.ln_p == pytest.approx(np.log(2_001)), "each of them counts as tried"
    assert not detect(sound, rate_hz, [key], payloads=others).detected


def test_unmarked_speech_is_none_of_many_calls(key: MarkKey, speech: np.ndarray) -> None:
    others = [call_payload(key, f"call {n}") for n in range(2_000)]
    assert detect(speech[: 5 * 24_000], 24_000, [key], payloads=others).p_value == 1.0


def test_a_payload_of_a_foreign_gateway_is_read_too(key: MarkKey, speech: np.ndarray) -> None:
    payload = 0x0123456789ABCDEF
    assert detect(marked(key, payload, speech)[: 5 * 24_000], 24_000, [key]).payload == payload


@pytest.mark.parametrize("seed", [4, 7])
def test_a_jitter_buffer_may_stretch_and_cut(seed: int, key: MarkKey, call: int, spoken: np.ndarray) -> None:
    rng = np.random.default_rng(seed)
    narrow, _ = through(spoken, 24_000, "G.711 mu")
    parts, at = [], 0
    while at < len(narrow):
        length = int(rng.uniform(0.3, 0.6) * 8_000)
        parts.append(narrow[at : at + length])
        at += length + int(rng.choice([-1, 1]) * rng.uniform(0.005, 0.012) * 8_000)
    assert detect(np.concatenate(parts)[:64_000], 8_000, [key]).payload == call


@pytest.mark.parametrize("speed", [-0.0093])
def test_other_speeds_are_found_when_asked_for(
    speed: float, key: MarkKey, call: int, spoken: np.ndarray
) -> None:
    played = soxr.resample(spoken[: 5 * 24_000], 24_000, 8_000 * (1 + speed))
    assert not detect(played, 8_000, [key]).detected
    found = detect(played, 8_000, [key], speeds=True)
    assert found.payload == call
    assert found.skew_ppm == pytest.approx(speed * 1e6, abs=120)


def test_the_second_lap_of_a_long_call(key: MarkKey, call: int, speech: np.ndarray) -> None:
    begins = carrier.LINE_HOPS - 300  # the lap ends 3 s into the excerpt
    found = detect(marked(key, call, speech, begins)[5 * 24_000 : 11 * 24_000], 24_000, [key])
    assert found.payload == call
    assert found.call_s == pytest.approx(begins / 100 + 5, abs=0.02)


def test_clipped_ends_and_silence_around_do_not_matter(key: MarkKey, call: int, spoken: np.ndarray) -> None:
    quiet = np.zeros(4 * 24_000, np.float32)
    sound = np.concatenate((quiet, spoken[: 5 * 24_000 + 111], quiet))
    found = detect(sound, 24_000, [key])
    assert found.payload == call
    assert found.call_s == pytest.approx(100.0 - 4 + found.starts_s, abs=0.02)


@pytest.mark.parametrize(
    ("sound", "rate_hz", "reason"),
    [
        (np.zeros(4_000), 8_000, "0.50 s is too short"),
        (np.zeros((2, 80_000)), 8_000, "one channel"),
        (np.zeros(80_000), 4_000, "4000 Hz"),
        (np.full(80_000, np.nan), 8_000, "not numbers"),
        (np.full(80_000, 1e300), 8_000, "not numbers"),
        (np.zeros(8_000 * 601), 8_000, "too long"),
    ],
)
def test_what_cannot_be_examined_says_why(sound: np.ndarray, rate_hz: int, reason: str, key: MarkKey) -> None:
    with pytest.raises(SoundError, match=reason):
        detect(sound, rate_hz, [key])


@pytest.mark.parametrize("version", [CARRIER_ALONE, BOTH_LAYERS])
@pytest.mark.parametrize("call_s", [(0.0, 1e6), (1e9, 1e9 + 0.2), (-1e6, 0.0), (5 * 3600.0, 6 * 3600.0)])
def test_a_place_beyond_any_call_is_an_answer(call_s: tuple[float, float], version: int) -> None:
    noise = np.random.default_rng(7).standard_normal(16_000)
    key = MarkKey("wm-feed", 0xFEED, bytes(32), version)
    assert not detect(noise, 8_000, [key], payloads=[key.gateway << 48 | 3], call_s=call_s).detected


@pytest.mark.parametrize("call_s", [(5.0, 1.0), (np.nan, 1.0), (0.0, np.inf)])
def test_a_place_that_is_none_says_what_is_wanted(call_s: tuple[float, float], key: MarkKey) -> None:
    with pytest.raises(ValueError, match="two times in seconds, the earlier one first"):
        detect(np.ones(16_000), 8_000, [key], payloads=[1], call_s=call_s)


def test_silence_and_no_keys_find_nothing(key: MarkKey) -> None:
    assert not detect(np.zeros(80_000), 8_000, [key]).detected
    assert not detect(np.ones(80_000), 8_000, [key]).detected
    assert not detect(np.ones(80_000), 8_000, []).detected


def test_p_values_are_bounds_also_for_sound_made_to_fool_a_gaussian(key: MarkKey) -> None:
    """A few enormous tiles: the normaliser must hold them."""
    rng = np.random.default_rng(6)
    clicks = np.zeros(80_000, np.float32)
    clicks[rng.integers(80_000, size=12)] = 1.0
    tones = np.sin(2 * np.pi * 1_100 * np.arange(80_000) / 8_000)
    for sound in (clicks, tones, np.tile(rng.standard_normal(80), 1_000)):
        assert detect(sound, 8_000, [key]).p_value > 1e-3
