import numpy as np
import pytest

from tests.watermark.channels import through
from watermark import carrier, code, drift
from watermark.detect import detect
from watermark.drift import Start
from watermark.keys import MarkKey
from watermark.mark import MarkerBank
from watermark.payload import call_payload
from watermark.whiten import narrow, whiten

CALL_S = 100


def wobbled(samples: np.ndarray, rate_hz: int, milliseconds: float, hz: float) -> np.ndarray:
    """Sound whose time goes to and fro: `x(t + A sin(2 pi f t))`."""
    at = np.arange(len(samples)) / rate_hz
    moved = at + milliseconds / 1000 * np.sin(2 * np.pi * hz * at)
    return np.interp(moved * rate_hz, np.arange(len(samples)), samples).astype(np.float32)


@pytest.fixture(scope="module")
def call(key: MarkKey) -> int:
    return call_payload(key, "a call")


@pytest.fixture(scope="module")
def spoken(key: MarkKey, call: int, speech: np.ndarray) -> np.ndarray:
    """10 s of marked speech, 100 s into the call, at 24 kHz."""
    bank = MarkerBank(key)
    slot = np.array([bank.open(call)])
    bank.rest(slot, CALL_S * 100)
    (frame,) = bank.mark(slot, speech[None, : 10 * 24_000])
    return frame.samples


@pytest.fixture(scope="module")
def wobbly(spoken: np.ndarray) -> np.ndarray:
    """The same with a wobble of 1 ms, once a second, through a telephone line: whitened, at 8 kHz."""
    sound, rate_hz = through(wobbled(spoken, 24_000, 1.0, 1.0), 24_000, "G.711 mu")
    return whiten(narrow(sound, rate_hz))


def judged(white: np.ndarray, key: MarkKey, payload: int, start: Start) -> drift.Half:
    hops, middle = start.hops(len(white), 0)
    half = drift.halves(white, carrier.call_chips(key, payload, code.encode(payload), hops), middle)
    assert half is not None
    return half


def test_a_wobble_that_nobody_hears_is_followed(key: MarkKey, call: int, wobbly: np.ndarray) -> None:
    assert judged(wobbly, key, call, Start(CALL_S * 100)).score > 15  # 5.4 is asked; 25 to 30 here
    assert judged(wobbly, key, call, Start(CALL_S * 100 + 2.5)).score > 15
    assert abs(judged(wobbly, key, call ^ 1 << 40, Start(CALL_S * 100)).score) < 5
    assert abs(judged(wobbly, key, call, Start(CALL_S * 100 + 50)).score) < 5


def test_the_course_is_the_wobble(key: MarkKey, call: int, wobbly: np.ndarray) -> None:
    hops, middle = Start(CALL_S * 100).hops(len(wobbly), 0)
    chips = carrier.call_chips(key, call, code.encode(call), hops)
    course = drift.followed(wobbly, chips, middle)
    said_s = (course.middle - middle) / 8_000
    true_s = -1e-3 * np.sin(2 * np.pi * middle / 8_000)
    assert np.median(np.abs(said_s - true_s - np.median(said_s - true_s))) < 60e-6


def test_chips_that_judge_do_not_choose_the_course(key: MarkKey, call: int, wobbly: np.ndarray) -> None:
    """The bound holds only if a half is judged along a course that is the same whatever that half says."""
    hops, middle = Start(CALL_S * 100).hops(len(wobbly), 0)
    chips = carrier.call_chips(key, call, code.encode(call), hops)
    courses: list[drift.Course] = []
    true_course = drift.followed

    def noted(white: np.ndarray, seen: np.ndarray, around: np.ndarray) -> drift.Course:
        courses.append(true_course(white, seen, around))
        return courses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "followed", noted)
        patch.setattr(drift, "CLEAR", np.inf)
        drift.halves(wobbly, chips, middle)
        for at, half in enumerate(drift.HALVES):
            turned = chips.copy()
            turned[:, half] *= -1
            courses_before = courses[at]
            drift.halves(wobbly, turned, middle)
            assert np.array_equal(courses[-2 + at].middle, courses_before.middle)
    assert sorted(np.concatenate(drift.HALVES).tolist()) == carrier.DATA.tolist()


def test_without_a_mark_the_better_half_is_the_best_of_two_normal_ones(key: MarkKey) -> None:
    """40 payloads at one place: the mean of the better of two standard normal scores is .56."""
    noise = whiten(np.random.default_rng(3).standard_normal(2 * 8_000).astype(np.float32) * 0.1)
    scores = [judged(noise, key, call_payload(key, f"call {n}"), Start(500.0)).score for n in range(40)]
    assert max(scores) < 4.5
    assert 0.2 < np.mean(scores) < 0.95


def test_the_pilot_alone_lays_the_recording_for_the_data(key: MarkKey, call: int, wobbly: np.ndarray) -> None:
    found = drift.by_pilot(wobbly, key, Start(carrier.entry(key, call) + CALL_S * 100 + 1.5))
    assert found is not None
    counter = found.places - carrier.entry(key, call)
    data = carrier.call_chips(key, call, code.encode(call), counter)[:, carrier.DATA]
    tiles = found.tiles[:, carrier.DATA]
    z = (tiles * np.conj(data)).real.sum() / np.sqrt(np.square(np.abs(tiles)).sum())
    assert z > 12
    assert drift.by_pilot(wobbly[:7_000], key, Start(0.0)) is None


def test_a_wobble_is_verified_where_the_place_is_known(key: MarkKey, call: int, spoken: np.ndarray) -> None:
    sound = wobbled(spoken, 24_000, 1.0, 1.0)
    found = detect(sound, 24_000, [key], payloads=[call], call_s=(CALL_S - 0.1, CALL_S + 0.15))
    assert found.detected
    assert found.payload == call
    assert found.call_s == pytest.approx(CALL_S + (found.starts_s or 0.0), abs=0.03)
    other = call_payload(key, "another call")
    assert not detect(sound, 24_000, [key], payloads=[other], call_s=(CALL_S - 0.1, CALL_S + 0.15)).detected


def test_every_try_is_counted(key: MarkKey, call: int, spoken: np.ndarray) -> None:
    """A wider window and more calls make more tries, of which each is charged."""
    sound = wobbled(spoken, 24_000, 1.0, 1.0)
    one = detect(sound, 24_000, [key], payloads=[call], call_s=(CALL_S - 0.01, CALL_S + 0.01))
    three = detect(sound, 24_000, [key], payloads=[call], call_s=(CALL_S - 0.07, CALL_S + 0.07))
    assert three.ln_p - one.ln_p - (one.score**2 - three.score**2) / 2 == pytest.approx(np.log(3), abs=1e-3)
    others = [call_payload(key, f"call {n}") for n in range(3)]
    four = detect(sound, 24_000, [key], payloads=[*others, call], call_s=(CALL_S - 0.01, CALL_S + 0.01))
    assert four.ln_p - one.ln_p == pytest.approx(np.log(4), abs=1e-3)


def test_hops_lie_where_the_tempo_puts_them() -> None:
    hops, middle = Start(10.5, 0.02).hops(8_000)
    assert hops[0] == 11
    assert middle[0] == pytest.approx(0.5 * 80 / 1.02 + 80)
    assert np.diff(middle) == pytest.approx(80 / 1.02)
    assert middle[-1] + 80 <= 8_000
    assert Start(-20.0).hops(8_000, 0)[0][0] == 0
    assert not len(Start(0.0).hops(100)[0])
