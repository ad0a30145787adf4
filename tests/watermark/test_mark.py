import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark import carrier
from watermark.envelope.marker import EnvelopeBank
from watermark.errors import MarkError
from watermark.frames import MarkedFrame
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import AHEAD, HOP, Marker, MarkerBank

KEY = MarkKey("wm-beef", 0xBEEF, bytes(range(32)))
BOTH = MarkKey("wm-beef", 0xBEEF, bytes(range(32)), BOTH_LAYERS)
EACH_VERSION = pytest.mark.parametrize("key", [KEY, BOTH], ids=["version 1", "version 2"])
PAYLOAD = 0xBEEF_0000_1234_5678
NOISE = (0.1 * np.random.default_rng(5).standard_normal(48_000)).astype(np.float32)
TWO = np.array([0, 1])


def cut(samples: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    at, parts = 0, []
    for length in lengths:
        parts.append(samples[at : at + length])
        at += length
    return [part for part in (*parts, samples[at:]) if len(part)]


def marked(samples: np.ndarray, lengths: list[int], key: MarkKey = KEY) -> np.ndarray:
    marker = Marker(key, PAYLOAD)
    return np.concatenate([marker.mark(part).samples for part in cut(samples, lengths)])


WHOLE = {key: marked(NOISE, [], key) for key in (KEY, BOTH)}


@EACH_VERSION
@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 4_000), max_size=40))
def test_the_samples_are_the_same_however_the_stream_is_cut(key: MarkKey, lengths: list[int]) -> None:
    assert np.array_equal(marked(NOISE, lengths, key), WHOLE[key])


def test_the_delay_is_ten_milliseconds_and_the_mark_is_small() -> None:
    delayed = WHOLE[KEY][HOP:] - NOISE[:-HOP]
    assert Marker(KEY, PAYLOAD).delay_samples == HOP == 240
    assert 0 < np.abs(delayed).max() < 0.1
    assert np.array_equal(WHOLE[KEY][:HOP], np.zeros(HOP))


def test_both_layers_have_no_more_delay_and_change_the_speech_little() -> None:
    delayed = WHOLE[BOTH][HOP:] - NOISE[:-HOP]
    assert Marker(BOTH, PAYLOAD).delay_samples == HOP
    assert np.array_equal(WHOLE[BOTH][:HOP], np.zeros(HOP))
    assert 10 * np.log10(np.square(NOISE).sum() / np.square(delayed).sum()) > 15


@EACH_VERSION
def test_a_batch_gives_each_call_the_samples_it_gets_alone(key: MarkKey) -> None:
    rng = np.random.default_rng(1)
    calls = (0.2 * rng.standard_normal((37, 24_000)) * rng.random((37, 1))).astype(np.float32)
    bank = MarkerBank(key)
    slots = np.array([bank.open(PAYLOAD + n) for n in range(37)])
    batched = np.concatenate(
        [
            np.stack([frame.samples for frame in bank.mark(slots, calls[:, at : at + 480])])
            for at in range(0, 24_000, 480)
        ],
        axis=1,
    )
    for n, call in enumerate(calls):
        marker = Marker(key, PAYLOAD + n)
        alone = np.concatenate((marker.mark(call).samples, marker.flush().samples))[HOP:]
        assert np.array_equal(alone, batched[n])


@EACH_VERSION
def test_a_call_is_marked_alone_and_among_others_by_turns(key: MarkKey) -> None:
    calls = NOISE.reshape(2, 24_000)
    bank, turns = MarkerBank(key), MarkerBank(key)
    for n in range(2):
        assert bank.open(PAYLOAD + n) == turns.open(PAYLOAD + n) == n
    expected = [frame.samples for frame in bank.mark(TWO, calls)]
    got: list[list[np.ndarray]] = [[], []]
    for turn, at in enumerate(range(0, 24_000, 480)):
        block = calls[:, at : at + 480].copy()
        for some in [TWO] if turn % 3 else [TWO[:1], TWO[1:]]:
            for slot, frame in zip(some, turns.mark(some, block[some]), strict=True):
                got[slot].append(frame.samples)
        block[:] = 0.0  # the caller's to use again
    assert np.array_equal([np.concatenate(frames) for frames in got], expected)


@EACH_VERSION
def test_the_mark_depends_on_key_payload_and_place_alone(key: MarkKey) -> None:
    assert np.array_equal(marked(NOISE, [], key), WHOLE[key])
    other_payload = Marker(key, PAYLOAD + 1).mark(NOISE).samples
    other_key = Marker(MarkKey("x", 0xBEEF, bytes(32), key.version), PAYLOAD).mark(NOISE).samples
    assert not np.array_equal(other_payload, WHOLE[key])
    assert not np.array_equal(other_key, WHOLE[key])


def test_two_calls_and_two_moments_of_one_call_share_nothing() -> None:
    bank = MarkerBank(KEY)
    slots = np.array([bank.open(PAYLOAD), bank.open(PAYLOAD + 1)])
    one, two = (frame.samples for frame in bank.mark(slots, np.stack((NOISE, NOISE))))
    (again, _) = (frame.samples for frame in bank.mark(slots, np.stack((NOISE, NOISE))))
    marks = np.stack((one - NOISE, two - NOISE, again - NOISE))[:, 480:]
    correlation = np.corrcoef(marks)
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(4_000)


def test_silence_stays_silence() -> None:
    silent = np.zeros(24_000, np.float32)
    assert not Marker(KEY, PAYLOAD).mark(silent).samples.any()
    marker = Marker(KEY, PAYLOAD)
    marker.mark(NOISE)
    after = marker.mark(silent).samples
    assert after[: 3 * HOP].any()  # the end of the last frame
    assert not after[3 * HOP :].any()


def test_silence_stays_silence_under_both_layers() -> None:
    silent = np.zeros(24_000, np.float32)
    assert not Marker(BOTH, PAYLOAD).mark(silent).samples.any()
    marker = Marker(BOTH, PAYLOAD)
    marker.mark(NOISE)
    assert not marker.mark(silent).samples[4 * HOP :].any()  # the filters' memory is a hop more


@EACH_VERSION
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_cannot_be_marked_and_harms_no_neighbour(bad: float, key: MarkKey) -> None:
    broken = NOISE[:480].copy()
    broken[100] = bad
    with pytest.raises(MarkError, match="finite"):
        Marker(key, PAYLOAD).mark(broken)
    bank, alone = MarkerBank(key), MarkerBank(key)
    slots = np.array([bank.open(PAYLOAD), bank.open(PAYLOAD + 1)])
    slot = np.array([alone.open(PAYLOAD + 1)])
    for block in (np.stack((broken, NOISE[:480])), np.stack((NOISE[:480], NOISE[:480]))):
        first, second = bank.mark(slots, block)
        (expected,) = alone.mark(slot, block[1:])
        assert np.array_equal(second.samples, expected.samples)
        assert isinstance(first, MarkError if block is not None and np.isnan(block).any() else object)
    assert isinstance(first, MarkedFrame)


def test_an_unmarkable_frame_takes_its_time_so_that_the_grid_stays() -> None:
    bank = MarkerBank(KEY)
    slot = bank.open(PAYLOAD)
    bank.mark(np.array([slot]), np.full((1, 480), np.nan, np.float32))
    assert bank.position(slot) == 2


@EACH_VERSION
def test_rest_moves_the_grid_on(key: MarkKey) -> None:
    resting, speaking = MarkerBank(key), MarkerBank(key)
    slots = np.array([resting.open(PAYLOAD)]), np.array([speaking.open(PAYLOAD)])
    for hops in (1, 3, 64, 500):
        resting.rest(slots[0], hops)
        speaking.mark(slots[1], np.zeros((1, hops * HOP), np.float32))
        one, two = (b.mark(s, NOISE[None, :480])[0] for b, s in zip((resting, speaking), slots, strict=True))
        assert np.array_equal(one.samples, two.samples)
        resting.rest(slots[0], 4)
        speaking.mark(slots[1], np.zeros((1, 4 * HOP), np.float32))


@EACH_VERSION
def test_frames_of_the_wrong_shape_are_refused(key: MarkKey) -> None:
    bank = MarkerBank(key)
    slots = np.array([bank.open(PAYLOAD)])
    assert isinstance(bank.mark(slots, NOISE[None, :481])[0], MarkError)
    assert isinstance(bank.mark(np.array([99]), NOISE[None, :480])[0], MarkError)
    for frame in (np.zeros((2, 240), np.float32), np.zeros(0, np.float32)):
        with pytest.raises(MarkError):
            Marker(key, PAYLOAD).mark(frame)
    with pytest.raises(MarkError, match="11025"):
        Marker(key, PAYLOAD, 11_025)


@EACH_VERSION
def test_slots_are_used_again_and_begin_anew(key: MarkKey) -> None:
    bank = MarkerBank(key)
    slots = [bank.open(PAYLOAD + n) for n in range(40)]
    assert len(set(slots)) == 40
    bank.mark(np.array(slots), np.tile(NOISE[:480], (40, 1)))
    bank.close(slots[7])
    bank.close(slots[7])
    assert bank.open(PAYLOAD) == slots[7]
    (frame,) = bank.mark(np.array(slots[7:8]), NOISE[None, :480])
    fresh = MarkerBank(key)
    (expected,) = fresh.mark(np.array([fresh.open(PAYLOAD)]), NOISE[None, :480])
    assert np.array_equal(frame.samples, expected.samples)


@EACH_VERSION
def test_samples_stay_in_range(key: MarkKey) -> None:
    loud = np.sign(NOISE) * np.float32(1.0)
    assert np.abs(Marker(key, PAYLOAD).mark(loud).samples).max() <= 1.0


@EACH_VERSION
def test_a_call_that_is_taken_up_goes_on_where_it_was(key: MarkKey) -> None:
    whole, taken_up = MarkerBank(key), MarkerBank(key)
    slot = np.array([whole.open(PAYLOAD)])
    whole.rest(slot, 77_701)
    (expected,) = whole.mark(slot, NOISE[None, :4_800])
    later = np.array([taken_up.open(PAYLOAD, hop=77_701)])
    assert taken_up.position(int(later[0])) == 77_701
    (frame,) = taken_up.mark(later, NOISE[None, :4_800])
    assert np.array_equal(frame.samples, expected.samples)
    with pytest.raises(ValueError, match="before the call"):
        taken_up.open(PAYLOAD, hop=-1)
    assert taken_up.open(PAYLOAD) != int(later[0])


def test_the_carrier_is_softer_beside_the_envelope_layer_and_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What both layers do less what the envelope layer does is .8 of the carrier of that sound, if the call
    enters the carrier's line at the same place with both keys."""
    enters = carrier.entry(BOTH, PAYLOAD)
    monkeypatch.setattr(carrier, "entry", lambda *_: enters)
    calls = np.zeros(1, np.intp)
    swelled = np.empty((1, len(NOISE)), np.float32)
    bank = EnvelopeBank(BOTH, 24_000, HOP, 1, AHEAD)
    for at in range(0, len(NOISE) // HOP, AHEAD):
        bank.draw(0, PAYLOAD, at)
        piece = slice(at * HOP, (at + AHEAD) * HOP)
        count = NOISE[piece].size // HOP
        swelled[:, piece] = bank.mark(calls, (calls[:, None], np.arange(count)[None]), NOISE[None, piece])
    alone = Marker(KEY, PAYLOAD).mark(swelled[0]).samples[HOP:] - swelled[0, :-HOP]
    beside = WHOLE[BOTH][HOP:] - swelled[0, :-HOP]
    assert np.abs(beside - 0.8 * alone).max() < 1e-5 * np.abs(alone).max()
