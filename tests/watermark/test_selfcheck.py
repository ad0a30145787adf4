import numpy as np
import pytest

from watermark.frames import MarkedFrame
from watermark.keys import MarkKey
from watermark.mark import MarkerBank
from watermark.selfcheck import SelfCheck, Window

PAYLOAD = 0xBEEF_1111_2222_3333
FRAME = 480


def sent(
    key: MarkKey, speech: np.ndarray, marked: bool, payload: int = PAYLOAD, pause_every: int = 10_000
) -> Window:
    """What the hall would hand over for this speech, with a pause of 3 s after some frames."""
    bank = MarkerBank(key)
    slot = np.array([bank.open(payload)])
    check = SelfCheck(key, PAYLOAD)
    for n, at in enumerate(range(0, len(speech) - FRAME, FRAME)):
        hop = bank.position(int(slot[0]))
        (frame,) = bank.mark(slot, speech[None, at : at + FRAME])
        assert isinstance(frame, MarkedFrame)
        if check.heard(hop, frame.samples if marked else speech[at : at + FRAME]):
            return check.take()
        if n % pause_every == pause_every - 1:
            bank.rest(slot, 300)
    raise AssertionError("less than 10 s of voice")


@pytest.fixture(scope="module")
def long_speech(speech: np.ndarray) -> np.ndarray:
    return np.concatenate((speech, speech))


def test_marked_speech_passes(key: MarkKey, long_speech: np.ndarray) -> None:
    found = sent(key, long_speech, marked=True).verdict()
    assert found.detected
    assert found.score > 40


def test_it_passes_across_pauses(key: MarkKey, long_speech: np.ndarray) -> None:
    found = sent(key, long_speech, marked=True, pause_every=70).verdict()
    assert found.detected
    assert found.score > 35


def test_unmarked_speech_and_the_wrong_mark_do_not_pass(key: MarkKey, long_speech: np.ndarray) -> None:
    assert not sent(key, long_speech, marked=False).verdict().detected
    assert not sent(key, long_speech, marked=True, payload=PAYLOAD + 1).verdict().detected


def test_pauses_do_not_count(key: MarkKey) -> None:
    check = SelfCheck(key, PAYLOAD)
    quiet = np.full(FRAME, 0.001, np.float32)
    assert not any(check.heard(2 * n, quiet) for n in range(1_000))
    assert not check.take().verdict().detected
