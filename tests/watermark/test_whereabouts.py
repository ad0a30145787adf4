"""Both layers together: what is found where time wobbles, and that every try is counted."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from tests.watermark.channels import through
from tests.watermark.test_drift import wobbled
from watermark import call_guesses, carrier, drift, judge, rows, whereabouts
from watermark.call_guesses import Heard, Whereabout
from watermark.detect import detect, detect_narrow
from watermark.drift import Start
from watermark.envelope import search
from watermark.envelope.cells import CELL_HOPS, Cells
from watermark.judge import LISTED, NOTHING, Detection, clearest
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import MarkerBank
from watermark.payload import call_payload
from watermark.whiten import narrow, whiten

CALL_S = 300


@pytest.fixture(scope="module")
def new() -> MarkKey:
    """A key with both layers."""
    return MarkKey("wm-cafe", 0xCAFE, bytes(range(1, 33)), BOTH_LAYERS, 2.0)


@pytest.fixture(scope="module")
def call(new: MarkKey) -> int:
    return call_payload(new, "a call")


@pytest.fixture(scope="module")
def spoken(new: MarkKey, call: int, speech: np.ndarray) -> np.ndarray:
    """12 s of marked speech at 24 kHz, 300 s into the call."""
    bank = MarkerBank(new)
    (frame,) = bank.mark(np.array([bank.open(call, CALL_S * 100)]), speech[None, : 12 * 24_000])
    return frame.samples


@pytest.fixture(scope="module")
def wobbly(spoken: np.ndarray) -> np.ndarray:
    """The same with a wobble of 2 ms, once a second, through a telephone line: at 8 kHz."""
    sound, rate_hz = through(wobbled(spoken, 24_000, 2.0, 1.0), 24_000, "G.711 mu")
    return narrow(sound, rate_hz)


def test_a_call_enters_both_lines_at_one_hop(new: MarkKey, call: int, key: MarkKey) -> None:
    assert carrier.entry(new, call) == Cells(new.secret).entry(call) * CELL_HOPS
    assert carrier.entry(key, call) % CELL_HOPS or carrier.entry(key, call ^ 1) % CELL_HOPS


def test_a_wobble_of_both_layers_is_ours_blind_and_verified(
    new: MarkKey, call: int, wobbly: np.ndarray
) -> None:
    blind = detect_narrow(wobbly, [new])
    assert blind.detected
    assert blind.payload in (None, call)
    found = detect_narrow(wobbly, [new], payloads=[call], call_s=(CALL_S - 10, CALL_S + 10))
    assert found.detected
    assert found.payload == call
    assert found.layer == "envelope"
    assert found.call_s == pytest.approx(CALL_S + (found.starts_s or 0.0), abs=0.05)
    anywhere = detect_narrow(wobbly, [new], payloads=[call])
    assert anywhere.payload == call


@pytest.fixture(scope="module")
def shifted(spoken: np.ndarray) -> np.ndarray:
    """The same with all frequencies 12 Hz higher, through a telephone line: the carrier is gone."""
    spectrum = np.fft.fft(spoken)
    spectrum[len(spoken) // 2 :] = 0.0
    turned = 2 * np.fft.ifft(spectrum) * np.exp(2j * np.pi * 12.0 * np.arange(len(spoken)) / 24_000)
    return narrow(*through(turned.real.astype(np.float32), 24_000, "G.711 mu"))


def test_the_envelope_by_itself_verifies_a_call_and_names_it_among_many(
    new: MarkKey, call: int, shifted: np.ndarray
) -> None:
    blind = detect_narrow(shifted, [new])
    assert (blind.detected, blind.payload, blind.layer) == (True, None, "envelope")
    for asked_s in ((CALL_S - 10.0, CALL_S + 10.0), (CALL_S - 0.2, CALL_S + 0.2), None):
        found = detect_narrow(shifted, [new], payloads=[call], call_s=asked_s)
        assert (found.payload, found.layer) == (call, "envelope")
        assert found.call_s == pytest.approx(CALL_S + (found.starts_s or 0.0), abs=0.05)
        assert not detect_narrow(shifted, [new], payloads=[call ^ 1], call_s=asked_s).detected
    others = [call_payload(new, f"call {n}") for n in range(500)]
    assert detect_narrow(shifted, [new], payloads=[*others, call]).payload == call
    assert detect_narrow(shifted, [new], payloads=others).payload is None


def test_a_recording_may_begin_before_its_call_does(new: MarkKey, call: int, speech: np.ndarray) -> None:
    bank = MarkerBank(new)
    (frame,) = bank.mark(np.array([bank.open(call)]), speech[None, : 8 * 24_000])
    sound = np.concatenate((np.zeros(3 * 24_000, np.float32), frame.samples))
    heard = Heard(narrow(sound, 24_000), whiten(narrow(sound, 24_000)))
    (found,) = whereabouts.anywhere(heard, new, [call], None)
    assert (found.payload, found.layer) == (call, "envelope")
    assert found.call_s == pytest.approx(-3.0 + (found.starts_s or 0.0), abs=0.05)


def test_a_call_is_named_among_many_through_a_wobble(new: MarkKey, call: int, wobbly: np.ndarray) -> None:
    others = [call_payload(new, f"call {n}") for n in range(500)]
    assert detect_narrow(wobbly, [new], payloads=[*others, call]).payload == call
    assert detect_narrow(wobbly, [new], payloads=others).payload is None


def test_where_the_place_is_known_an_envelope_that_was_undone_is_not_missed(
    new: MarkKey, call: int, wobbly: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = call_guesses.chip_network.soft
    mixed = np.random.default_rng(1).permutation
    monkeypatch.setattr(call_guesses.chip_network, "soft", lambda sound: mixed(hear(sound), axis=1))
    for about_s in (0.01, 0.25):
        about = (CALL_S - about_s, CALL_S + about_s)
        found = detect_narrow(wobbly, [new], payloads=[call], call_s=about)
        assert (found.detected, found.payload, found.layer) == (True, call, "carrier")
    assert whereabouts.is_known((255.9630823666914 - 0.25, 255.9630823666914 + 0.25)), "and an ulp"
    assert not detect_narrow(wobbly, [new], payloads=[call], call_s=(CALL_S + 3.0, CALL_S + 3.5)).detected


def test_another_call_at_this_place_is_ours_and_not_this_one(
    new: MarkKey, call: int, wobbly: np.ndarray
) -> None:
    """Calls that pass the same place of the line have the same cells, which do not say which call it is."""
    assert not detect_narrow(wobbly, [new], payloads=[call ^ 1]).detected
    asked_s = (CALL_S - 10.0, CALL_S + 10.0)
    cells = Cells(new.secret)
    far = (
        (cells.entry(call) - cells.entry(call ^ 1)) % search.LINE_CELLS * 0.06
    )  # where it passes the same place
    there_s = (far + asked_s[0], far + asked_s[1])
    assert not detect_narrow(wobbly, [new], payloads=[call ^ 1], call_s=there_s).detected


def test_clean_speech_is_named_by_the_carrier(new: MarkKey, call: int, spoken: np.ndarray) -> None:
    found = detect(spoken[: 5 * 24_000], 24_000, [new])
    assert (found.payload, found.layer) == (call, "carrier")


def test_where_bits_are_not_enough_the_envelope_confirms_a_call(
    new: MarkKey, call: int, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = narrow(spoken[: 10 * 24_000], 24_000)
    heard = Heard(sound, whiten(sound))
    found = detect_narrow(sound, [new])
    assert whereabouts.confirms(heard, new, found)
    assert not whereabouts.confirms(heard, new, replace(found, payload=call ^ 1))
    assert not whereabouts.confirms(heard, new, NOTHING)
    monkeypatch.setattr(judge, "agrees", lambda *_: False)
    assert detect_narrow(sound, [new]).payload == call
    monkeypatch.setattr(whereabouts, "confirms", lambda *_: False)
    unnamed = detect_narrow(sound, [new])
    assert (unnamed.detected, unnamed.payload, unnamed.call_s) == (True, None, None)


def test_among_many_calls_the_envelope_is_asked_first(
    new: MarkKey, call: int, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, few = narrow(spoken, 24_000), [call, call ^ 1]
    assert detect_narrow(sound, [new], payloads=few).layer == "carrier"
    many = [*range(LISTED), call]
    monkeypatch.setattr(rows.Calls, "of", None)  # what the carrier would begin with
    found = detect_narrow(sound, [new], payloads=many)
    assert (found.detected, found.payload, found.layer) == (True, call, "envelope")


def test_unmarked_speech_and_another_key_say_nothing(
    new: MarkKey, spoken: np.ndarray, speech: np.ndarray
) -> None:
    assert not detect(speech[: 10 * 24_000], 24_000, [new]).detected
    other = MarkKey("wm-0002", 2, bytes(32), BOTH_LAYERS)
    found = detect(spoken[: 10 * 24_000], 24_000, [other])
    assert not found.detected
    assert found.payload is None


def test_sound_played_faster_is_found_at_its_tempo(new: MarkKey, call: int, spoken: np.ndarray) -> None:
    import soxr

    fast = soxr.resample(spoken, 24_000, 8_000 / 1.02).astype(np.float32)
    found = detect_narrow(fast, [new], payloads=[call], call_s=(CALL_S - 5, CALL_S + 5))
    assert found.payload == call


def place(z: float, hop: int = 1_000, tempo: float = 0.0) -> search.LinePlace:
    tried = log(search.LINE_HOPS) + search.ANY.ln_tries(round(tempo / search.ANY.step))
    return search.LinePlace(hop, tempo, 0, z, min(0.0, tried - z * z / 2))


def heard_as(
    monkeypatch: pytest.MonkeyPatch,
    places: list[search.LinePlace],
    halves: list[float],
    own: dict[int, float] | None = None,
) -> list[int]:
    """The envelope's line is found at `places`, the call's half scores `own` (payload -> z) anywhere, and
    halves of the data score `halves`, in this order; what was judged."""
    judged: list[int] = []

    def score(white: np.ndarray, chips: np.ndarray, middle: np.ndarray) -> drift.Half:
        judged.append(len(chips))
        score = halves[min(len(judged), len(halves)) - 1]
        tiles = np.ones((len(chips), 26), np.complex64)
        return drift.Half(score, tiles, tiles, middle / 8_000, 0.0)

    def scores(_: np.ndarray, cells: Cells, payloads: np.ndarray, place: search.LinePlace) -> np.ndarray:
        return np.array([(own or {}).get(int(payload), 0.0) for payload in payloads], np.float32)

    monkeypatch.setattr(search, "call_scores", scores)
    monkeypatch.setattr(search, "search", lambda *_, count, **__: places[:count])
    monkeypatch.setattr(drift, "halves", score)
    monkeypatch.setattr(Heard, "soft", np.ones((8, 1_001), np.float32))
    return judged


@pytest.fixture
def noise() -> Heard:
    sound = np.random.default_rng(1).standard_normal(80_000).astype(np.float32) * 0.1
    return Heard(sound, whiten(sound))


def test_what_the_envelope_says_alone_is_ours_and_nobodys(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard_as(monkeypatch, [place(9.0)], [0.3])
    by_envelope, carried = whereabouts.anywhere(noise, new, [], None)
    assert (by_envelope.detected, by_envelope.payload, by_envelope.layer) == (True, None, "envelope")
    assert by_envelope.ln_p == pytest.approx(place(9.0).ln_p + log(2)), "the carrier's look counts"
    assert carried.payload is None
    found = detect_narrow(noise.sound, [new])
    assert (found.detected, found.payload, found.layer) == (True, None, "envelope")
    assert found.ln_p == pytest.approx(place(9.0).ln_p + log(4)), "and the pilot's search does"


TRIES = log(search.LINE_HOPS) + search.ANY.ln_tries(0)


def test_two_faint_layers_are_one_clear_mark(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither 6.8 of the envelope's halves nor 5.3 of a half of the data is enough; 8.5 of all is."""
    enters = Cells(new.secret).entry(call) * CELL_HOPS
    envelope = (6.6 + 3.0) / 2**0.5
    judged = heard_as(monkeypatch, [place(6.6, enters + 1_000)], [5.3], {call: 3.0})
    (found,) = whereabouts.anywhere(noise, new, [call], (0.0, 100.0))
    assert found.detected
    assert (found.payload, found.layer) == (call, "both")
    assert found.ln_p < -((envelope + 5.3) ** 2) / 4 + TRIES + log(2 * 2 * 2) + 0.01
    assert found.ln_p > -((envelope + 5.3) ** 2) / 4 + log(10_000) + log(2 * 2 * 2)
    assert len(judged) == 1


def test_a_faint_name_is_not_told(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together are clear, by the envelope's line; the call's own p is above .001, as is the carrier's."""
    heard_as(monkeypatch, [place(7.6)], [3.0], {call: 3.0})
    for found in whereabouts.anywhere(noise, new, [call], None):
        assert (found.detected, found.payload) == (False, None)


def test_the_calls_half_names_it_and_every_place_and_call_counts(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = [place(8.5), place(8.4, 5_000)]
    judged = heard_as(monkeypatch, clear, [0.3], {call: 6.5})
    both = (8.5 + 6.5) ** 2 / 4
    for asked in ([call], [call, call ^ 1], [call, *range(998)]):
        (found,) = whereabouts.anywhere(noise, new, asked, None)
        assert (found.detected, found.payload, found.layer) == (True, call, "envelope")
        assert found.ln_p == pytest.approx(TRIES - both + log(len(asked) * 2 * whereabouts.LOOKS), abs=0.01)
    heard_as(monkeypatch, [place(0.5), place(0.4, 5_000)], [0.3], {call: 6.9})
    for found in whereabouts.anywhere(noise, new, [call], None)[:1]:
        assert found.ln_p == pytest.approx(-(6.9**2) / 2 + log(2 * 2 * whereabouts.LOOKS), abs=0.01)
        assert (found.detected, found.payload) == (True, call)
    assert not judged, "the carrier is not followed where the envelope says it"


def test_a_clear_line_without_the_calls_half_is_another_call(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for own in (0.0, 3.3, -9.0):
        heard_as(monkeypatch, [place(30.0)], [0.3], {call: own})
        for asked_s in ((0.0, 100.0), None):
            for found in whereabouts.anywhere(noise, new, [call], asked_s):
                assert (found.detected, found.payload) == (False, None)


def test_the_carrier_is_asked_for_the_envelopes_guess_among_many(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The envelope's 4.5 names nobody among 1,000; the carrier has not chosen, so 1,000 are not its tries."""
    judged = heard_as(monkeypatch, [place(7.9)], [6.2, 0.1, 0.1], {call: 4.5})
    said, found = whereabouts.anywhere(noise, new, [*range(999), call], None)
    assert (said.detected, said.payload) == (False, None)
    assert (found.detected, found.payload) == (True, call)
    assert found.ln_p <= -(6.2**2) / 2 + log(2 * call_guesses.GUESSED * 2 * 2 * whereabouts.LOOKS)
    assert len(judged) == call_guesses.GUESSED


@pytest.mark.parametrize(("hop", "lap", "begins"), [(50, 0, 50), (-120, 0, -120), (700, 2, 700)])
def test_where_in_its_call_a_recording_begins(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch, hop: int, lap: int, begins: int
) -> None:
    heard_as(monkeypatch, [], [0.0])
    cells = Cells(new.secret)
    there = search.LinePlace((cells.entry(call) * CELL_HOPS + hop) % search.LINE_HOPS, 0.001, lap, 9.0, -20.0)
    (told,) = call_guesses.calls_at(noise, cells, [call], [there], [1.0])
    assert told.hop == pytest.approx(begins + lap * search.LINE_HOPS)


def test_many_places_are_many_tries(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = [(call, Whereabout(noise.white, Start(float(hop)))) for hop in (0, 500, 900)]
    judged = heard_as(monkeypatch, [], [1.0, 7.0, 2.0])
    found = whereabouts._verified(new, tries, len(tries))
    assert len(judged) == 3
    assert found.score == 7.0
    assert found.ln_p == pytest.approx(-49 / 2 + log(2 * 2 * 3))


def test_no_more_places_are_followed_than_count(
    new: MarkKey, call: int, noise: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faint places are chosen by their pilots, which no data have seen: those that are judged count."""
    faint = [place(5.0 - n / 100, 1_000 * n) for n in range(20)]
    judged = heard_as(monkeypatch, faint, [1.0] * 20)
    assert not any(found.detected for found in whereabouts.anywhere(noise, new, [call], None))
    assert len(judged) == whereabouts.FOLLOWED


def test_a_tempo_is_read_with_its_pitch_and_without(noise: Heard) -> None:
    assert [rest for _, rest in noise.read(0.001)] == [0.001]
    (kept, tempo), (slower, none) = noise.read(0.02)
    assert kept is noise.white
    assert (tempo, none) == (0.02, 0.0)
    assert len(slower) == pytest.approx(1.02 * len(kept), rel=1e-4)


def test_the_clearest_is_one_that_names_its_call() -> None:
    clear = Detection(True, 1e-30, ln_p=-69.0)
    name = Detection(True, 1e-9, payload=5, ln_p=-20.7)
    faint = Detection(False, 1e-3, payload=6, ln_p=-7.0)
    assert clearest([clear, name, faint]).payload == 5
    assert clearest([clear, faint, NOTHING]) is clear
