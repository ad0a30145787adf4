import numpy as np
import pytest
from scipy.signal import lfilter

from watermark.envelope.cells import BANDS, CELL_HOPS, EDGES_HZ, HALF_CELL_HOPS, LINE_CELLS, Cells
from watermark.envelope.marker import EnvelopeBank, swelling
from watermark.keys import BOTH_LAYERS, MarkKey

HOP = 240
RATE_HZ = 24_000
AHEAD = 128
PAYLOAD = 0xBEEF_0000_1234_5678
SECRET = bytes(range(32))
KEY = MarkKey("wm-beef", 0xBEEF, SECRET, BOTH_LAYERS)
CELLS = Cells(SECRET)
RNG = np.random.default_rng(3)
SPEECH = (0.1 * RNG.standard_normal(100 * HOP)).astype(np.float32)


def layered(
    pcm: np.ndarray, cuts: list[int], key: MarkKey = KEY, first: int = 0, hop: int = HOP
) -> np.ndarray:
    """One call's sound through the layer, in pieces of so many hops."""
    bank = EnvelopeBank(key, 100 * hop, hop, 1, AHEAD)
    out, at = [], 0
    for count in cuts:
        bank.draw(0, PAYLOAD, first + at)
        piece = pcm[None, at * hop : (at + count) * hop]
        out.append(bank.mark(slice(0, 1), (slice(0, 1), slice(0, count)), piece)[0])
        at += count
    return np.concatenate(out)


def by_the_book(pcm: np.ndarray, depth_db: float, first: int = 0) -> np.ndarray:
    """The layer by eight biquads, each with its own gain in decibels."""
    t = np.arange(len(pcm)) / RATE_HZ + first / 100
    out = pcm.astype(np.float64)
    for band in range(BANDS):
        low, high = EDGES_HZ[band : band + 2]
        omega = 2 * np.pi * np.sqrt(low * high) / RATE_HZ
        alpha = np.sin(omega) * np.sinh(np.log(2) / 2 * np.log2(high / low) * omega / np.sin(omega))
        heard = lfilter([alpha, 0, -alpha], [1 + alpha, -2 * np.cos(omega), 1 - alpha], pcm)
        cell = t / 0.06 - 0.5 * (band % 2)
        chips = CELLS.call(PAYLOAD, np.floor(cell).astype(np.int64))[:, band]
        out += (10 ** (depth_db * chips * np.sin(2 * np.pi * cell) / 20) - 1) * heard
    return out


def off_db(one: np.ndarray, two: np.ndarray) -> float:
    """How far the changes to SPEECH differ, relative to the change."""
    wrong, change = np.square(one - two).sum(), np.square(two - SPEECH).sum()
    return float(10 * np.log10(wrong / change))


@pytest.mark.parametrize("depth_db", [1.5, 2.0])
@pytest.mark.parametrize("first", [0, 1, 4, 100_001])
def test_it_does_what_eight_band_filters_with_sines_for_gains_do(depth_db: float, first: int) -> None:
    key = MarkKey("wm-beef", 0xBEEF, SECRET, BOTH_LAYERS, depth_db)
    assert off_db(layered(SPEECH, [100], key, first), by_the_book(SPEECH, depth_db, first)) < -25
    assert off_db(layered(SPEECH, [100], key, first), by_the_book(SPEECH, depth_db, first + 1)) > -5


def test_the_samples_are_the_same_however_the_stream_is_cut() -> None:
    whole = layered(SPEECH, [100])
    for cuts in ([1] * 100, [2] * 50, [1, 7, 64, 28]):
        assert np.array_equal(layered(SPEECH, cuts), whole)


def test_nothing_is_awaited_and_nothing_is_delayed() -> None:
    whole = layered(SPEECH, [100])
    for hops in (1, 2, 7):
        silent = SPEECH.copy()
        silent[hops * HOP :] = 0.0
        assert np.array_equal(layered(silent, [100])[: hops * HOP], whole[: hops * HOP])
    delays = np.correlate(whole[2_000:-2_000], SPEECH[1_900:-1_900])
    assert int(np.argmax(delays)) == 100


def test_silence_stays_silence_ten_milliseconds_after_speech() -> None:
    ended = SPEECH.copy()
    ended[50 * HOP :] = 0.0
    after = layered(ended, [100])[50 * HOP :]
    assert after[:HOP].any()
    assert not after[HOP:].any()


def test_the_level_stays_and_bands_swing_by_the_depth() -> None:
    long = (0.1 * np.random.default_rng(4).standard_normal(AHEAD * HOP)).astype(np.float32)
    marked = layered(long, [AHEAD])
    assert abs(10 * np.log10(np.square(marked).sum() / np.square(long).sum())) < 0.1
    frames = np.stack((marked, long)).reshape(2, AHEAD, HOP) * np.hanning(HOP)
    power = np.square(np.abs(np.fft.rfft(frames)))
    centres = np.sqrt(np.array(EDGES_HZ[1:]) * EDGES_HZ[:-1])
    near = np.rint(centres / 100).astype(int)
    gains_db = 10 * np.log10(power[0][:, near] / power[1][:, near])
    codes = swelling(CELLS, PAYLOAD, np.arange(AHEAD))
    up = np.unpackbits(codes.astype(np.uint8)[:, None], axis=1).astype(bool)
    peak = np.arange(AHEAD) % HALF_CELL_HOPS == 1  # the middle hop of half a cell
    for band in range(BANDS):
        swing = gains_db[peak & up[:, band], band].mean() - gains_db[peak & ~up[:, band], band].mean()
        assert 1.5 < swing < 4.0  # twice 1.5 dB, where the neighbours do not fill or deepen it


def test_a_cell_swells_and_sinks_by_its_chip_and_odd_bands_come_half_a_cell_later() -> None:
    hops = np.arange(60)
    up = np.unpackbits(swelling(CELLS, PAYLOAD, hops).astype(np.uint8)[:, None], axis=1).astype(bool)
    chips = CELLS.call(PAYLOAD, np.arange(-1, 10)) > 0
    for cell in range(10):
        first = slice(cell * CELL_HOPS, cell * CELL_HOPS + HALF_CELL_HOPS)
        second = slice(first.stop, (cell + 1) * CELL_HOPS)
        assert (up[first, ::2] == chips[cell + 1, ::2]).all()
        assert (up[second, ::2] != chips[cell + 1, ::2]).all()
        assert (up[first, 1::2] != chips[cell, 1::2]).all()
        assert (up[second, 1::2] == chips[cell + 1, 1::2]).all()


def test_hops_may_be_drawn_from_anywhere_and_over_the_lines_end() -> None:
    far = LINE_CELLS * CELL_HOPS
    whole = swelling(CELLS, PAYLOAD, np.arange(far - 60, far + 60))
    for first in (far - 59, far - 1, far, far + 1, far + 31):
        assert np.array_equal(
            swelling(CELLS, PAYLOAD, np.arange(first, first + 20)), whole[first - far + 60 :][:20]
        )
    assert not np.array_equal(whole[60:], swelling(CELLS, PAYLOAD, np.arange(60)))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_other_rates_have_their_own_filters(rate_hz: int) -> None:
    hop = rate_hz // 100
    noise = (0.1 * np.random.default_rng(4).standard_normal(60 * hop)).astype(np.float32)
    change = layered(noise, [60], hop=hop) - noise
    spectrum = np.square(np.abs(np.fft.rfft(change)))
    hz = np.fft.rfftfreq(len(change), 1 / rate_hz)
    assert spectrum[(hz > 270) & (hz < 3_400)].mean() > 10 * spectrum[hz < 100].mean()
