"""What a call's sound is worth to who hears it: the E-model of ITU-T G.107 (06/2015), in its narrow band.

A rating `R` of 0 to 100 is what is left of a clean line's worth when loss and delay are taken off (clause
7.1), and a mean opinion score (MOS) of 1 to 4.5 is the same said otherwise (Annex B). What a gateway cannot
measure (loudness, noise in rooms, sidetone, echo) has the values of G.107's table of defaults, by which a
line without loss and delay has R = 93.2, a MOS of 4.41.

Codecs are rated on this one scale, so that calls compare: G.722 and Opus get nothing for their wider band.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

# G.107, the table of default values (clause 7.7); dB, dBm0p, dB(A) as there
SLR: Final = 8.0
RLR: Final = 2.0
STMR: Final = 15.0
D_SEND: Final = 3.0
D_RECEIVE: Final = 3.0
TELR: Final = 65.0
WEPL: Final = 110.0
QDU: Final = 1.0
CIRCUIT_NOISE: Final = -70.0
NOISE_FLOOR: Final = -64.0
ROOM_NOISE: Final = 35.0
"""on both sides"""
BEARABLE_MS: Final = 100.0
"""mT: the delay that nobody notices, in a conversation of the usual sensitivity to delay (sT = 1)."""
WORST_IE: Final = 95.0


class Impairment(NamedTuple):
    """What a codec costs: `ie` without any loss, and how well it bears loss, `bpl` (G.113)."""

    ie: float
    bpl: float


G711_CONCEALED: Final = Impairment(0.0, 25.1)
"""With the concealment of G.711 Appendix I, which ours follows (G.113 Appendix I). Without it, Bpl is 4.3."""
IMPAIRMENTS: Final[Mapping[str, Impairment]] = {
    "PCMU": G711_CONCEALED,
    "PCMA": G711_CONCEALED,
    # G.113's values for G.722 are of the wideband scale. On this one it is taken for G.711, which it is not
    # worse than, and what is lost of it is concealed in the same way.
    "G722": G711_CONCEALED,
    # G.113 has none for Opus. At our 40 kbit/s it is not worse than G.711. The Bpl is that of rtcscore, a
    # library, for Opus with FEC, which both sides may use here.
    "OPUS": Impairment(0.0, 20.0),
    "G729": Impairment(11.0, 19.0),  # of Annex A (G.113 Appendix I)
}
"""By codec, in capital letters."""


def impairment(codec: str | None) -> Impairment | None:
    """That of a codec as lines name it (`PCMU`, `opus/48000`); None when it is not known."""
    return IMPAIRMENTS.get((codec or "").partition("/")[0].upper())


def rating(codec: Impairment, loss: float, delay_s: float, burst: float = 1.0) -> float:
    """R, which may be below 0 (clause 7.1).

    `loss` is the share of packets that was not heard, 0 to 1; `delay_s` goes from mouth to ear. `burst`
    (BurstR) is how much longer losses last than losses by pure chance would. Raises `ValueError` for what
    cannot be.
    """
    if not 0.0 <= loss <= 1.0 or delay_s < 0.0 or burst <= 0.0:
        raise ValueError(
            f"no sound has a loss of {loss:g}, a delay of {delay_s:g} s and a burst of {burst:g}"
        )
    delay_ms = 1000.0 * delay_s
    noise = _noise()
    ratio = _signal_to_noise(noise)
    simultaneous = _simultaneous(noise, ratio, delay_ms)
    return ratio - simultaneous - _delayed(noise, ratio, delay_ms) - _equipment(codec, 100.0 * loss, burst)


def mos(rating: float) -> float:
    """The mean opinion score of a rating, 1 to 4.5 (Annex B)."""
    if rating <= 0.0:
        return 1.0
    if rating >= 100.0:
        return 4.5
    # between 0 and 6.5 the polynomial lies below 1, the worst score that there is
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)


# ── the terms of R ───────────────────────────────────────────────────────────────────────────────────────


def _power(*levels: float) -> float:
    """The level of several noises together, dB."""
    return 10.0 * math.log10(sum(math.pow(10.0, level / 10.0) for level in levels))


def _bend(x: float, sharpness: int) -> float:
    """1 for a small `x`, and `x` for a large one; the model's way from no impairment to a growing one."""
    return math.pow(1.0 + math.pow(x, sharpness), 1.0 / sharpness)


def _noise() -> float:
    """No: all noises, seen from the point of 0 dB (clause 7.2)."""
    sent = ROOM_NOISE - SLR - D_SEND - 100.0 + 0.004 * (ROOM_NOISE - (SLR + RLR) - D_SEND - 14.0) ** 2
    listener = STMR + D_RECEIVE
    effective = ROOM_NOISE + 10.0 * math.log10(1.0 + math.pow(10.0, (10.0 - listener) / 10.0))
    received = RLR - 121.0 + effective + 0.008 * (effective - 35.0) ** 2
    return _power(CIRCUIT_NOISE, sent, received, NOISE_FLOOR + RLR)


def _signal_to_noise(noise: float) -> float:
    """Ro (clause 7.2)."""
    return 15.0 - 1.5 * (SLR + noise)


def _simultaneous(noise: float, ratio: float, delay_ms: float) -> float:
    """Is: too loud, a poor sidetone, quantizing (clause 7.3)."""
    loud = SLR + RLR + 0.2 * (64.0 + noise - RLR)
    too_loud = 20.0 * (_bend(loud / 8.0, 8) - loud / 8.0)
    sidetone = -_power(-STMR, -TELR - 10.0 * math.log10(math.e) * delay_ms / 4.0)
    poor_sidetone = (
        12.0 * _bend((sidetone - 13.0) / 6.0, 8)
        - 28.0 * _bend((sidetone + 1.0) / 19.4, 35)
        - 13.0 * _bend((sidetone - 3.0) / 33.0, 13)
        + 29.0
    )
    q = 37.0 - 15.0 * math.log10(QDU)
    g = 1.07 + 0.258 * q + 0.0602 * q**2
    y = (ratio - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0
    z = 46.0 / 30.0 - g / 40.0
    return too_loud + poor_sidetone + 15.0 * math.log10(1.0 + math.pow(10.0, y) + math.pow(10.0, z))


def _delayed(noise: float, ratio: float, delay_ms: float) -> float:
    """Id: echo to the talker and to the listener, and delay as such (clause 7.4).

    Nothing but the way delays: T = Ta, Tr = 2 Ta.
    """
    return _talker_echo(noise, delay_ms) + _listener_echo(ratio, 2.0 * delay_ms) + _too_late(delay_ms)


def _talker_echo(noise: float, delay_ms: float) -> float:
    """Idte, which is a little below 0 for some milliseconds; below 1 ms an echo is sidetone."""
    if delay_ms < 1.0:
        return 0.0
    later = 40.0 * math.log10((1.0 + delay_ms / 10.0) / (1.0 + delay_ms / 150.0))
    loudness = TELR - later + 6.0 * math.exp(-0.3 * delay_ms**2)
    without, with_echo = -1.5 * (noise - RLR), 80.0 + 2.5 * (loudness - 14.0)
    half = (without - with_echo) / 2.0
    return (half + math.sqrt(half**2 + 100.0) - 1.0) * (1.0 - math.exp(-delay_ms))


def _listener_echo(ratio: float, round_trip_ms: float) -> float:
    """Idle."""
    with_echo = 10.5 * (WEPL + 7.0) * math.pow(round_trip_ms + 1.0, -0.25)
    half = (ratio - with_echo) / 2.0
    return half + math.sqrt(half**2 + 169.0)


def _too_late(delay_ms: float) -> float:
    """Idd."""
    if delay_ms <= BEARABLE_MS:
        return 0.0
    x = math.log2(delay_ms / BEARABLE_MS)
    return 25.0 * (_bend(x, 6) - 3.0 * _bend(x / 3.0, 6) + 2.0)


def _equipment(codec: Impairment, loss_percent: float, burst: float) -> float:
    """Ie-eff: the codec, and what was lost of it (clause 7.5)."""
    lost = loss_percent / (loss_percent / burst + codec.bpl)
    return codec.ie + (WORST_IE - codec.ie) * lost
