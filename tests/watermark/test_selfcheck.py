import numpy as np
import pytest

from watermark.frames import MarkedFrame
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import MarkerBank
from watermark.selfcheck import SelfCheck, Window

PAYLOAD = 0xBEEF_1111_2222_3333
FRAME = 480

BOTH = MarkKey("wm-beef", 0xBEEF, bytes(range(32)), BOTH_LAYERS)
EACH_VERSION = pytest.mark.parametrize(
    "key", [MarkKey("wm-beef", 0xBEEF, bytes(range(32))), BOTH], ids=["version 1", "version 2"]
)


def sent(
    key: MarkKey,
    speech: np.ndarray,
    marked: bool,
    payload: int = PAYLOAD,
    pause_every: int = 10_000,
    checked: MarkKey | None = None,
) -> Window:
    """What the hall would hand over for this speech, with a pause of 3 s after some frames."""
    bank = MarkerBank(key)
    slot = np.array([bank.open(payload)])
    check = SelfCheck(checked or key, PAYLOAD)
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


@EACH_VERSION
def test_marked_speech_passes(key: MarkKey, long_speech: np.ndarray) -> None:
    found = sent(key, long_speech, marked=True).verdict()
    assert found.detected
    assert found.score > (32 if key.has_envelope else 40)


@EACH_VERSION
def test_it_passes_across_pauses(key: MarkKey, long_speech: np.ndarray) -> None:
    found = sent(key, long_speech, marked=True, pause_every=70).verdict()
    assert found.detected
    assert found.score > (28 if key.has_envelope else 35)


@EACH_VERSION
def test_unmarked_speech_and_the_wrong_mark_do_not_pass(key: MarkKey, long_speech: np.ndarray) -> None:
    assert not sent(key, long_speech, marked=False).verdict().detected
    assert not sent(key, long_speech, marked=True, payload=PAYLOAD + 1).verdict().detected


@EACH_VERSION
def test_pauses_do_not_count(key: MarkKey) -> None:
    check = SelfCheck(key, PAYLOAD)
    quiet = np.full(FRAME, 0.001, np.float32)
    assert not any(check.heard(2 * n, quiet) for n in range(1_000))
    assert not check.take().verdict().detected


def test_a_voice_without_the_envelope_layer_of_its_key_does_not_pass(
    key: MarkKey, long_speech: np.ndarray
) -> None:
    """The carrier is there, and louder: only the layer's own score can tell."""
    found = sent(key, long_speech, marked=True, checked=BOTH).verdict()
    assert not found.detected
    assert found.score < 4
    assert sent(key, long_speech, marked=True).verdict().detected


@pytest.mark.parametrize("depth_db", [1.0, 2.0])
def test_a_key_of_any_depth_passes(depth_db: float, long_speech: np.ndarray) -> None:
    deep = MarkKey("wm-beef", 0xBEEF, bytes(range(32)), BOTH_LAYERS, depth_db)
    assert sent(deep, long_speech, marked=True).verdict().detected
    assert sent(deep, long_speech, marked=True, pause_every=70).verdict().detected
