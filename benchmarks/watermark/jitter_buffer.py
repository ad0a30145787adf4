"""A stand-in for NetEq, the jitter buffer of WebRTC that stretches and squeezes time.

It is not Chromium's code, and the table names it a stand-in. It keeps what a mark feels of NetEq: packets of
20 ms come late in bursts and some never; the buffer's target is the 97th percentile of the delays of the last
100 packets; above it a pitch period is taken out of 30 ms of sound, below it one is put in, both only where
the sound repeats itself (correlation .9 or little energy), by cross-fade at lags of 2.5 to 15 ms; an empty
buffer repeats the last period, fading, and what comes then is cross-faded in. (Source: the accelerate,
preemptive expand, expand and delay manager parts of NetEq in WebRTC.)
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import soxr

from benchmarks.watermark.channels import own_chance

RATE_HZ: Final = 8_000
PACKET: Final = 160
LAGS: Final = (20, 120)
"""2.5 to 15 ms."""
LIKE: Final = 0.9
QUIET: Final = 1e-3
"""rms below which anything may be cut."""
LOST: Final = 0.01
WINDOW: Final = 100


def delays_s(count: int, rng: np.random.Generator) -> np.ndarray:
    """How late each packet comes, in s, infinite where it never does: a few ms always, and every 2 s or so a
    burst of 60 to 200 ms that drains as fast as packets come (a radio that was away)."""
    late = rng.gamma(1.5, 0.006, count)
    at = 0
    while (at := at + int(rng.exponential(100)) + 5) < count:
        burst = rng.uniform(0.06, 0.2)
        for behind in range(min(int(burst / 0.02) + 1, count - at)):
            late[at + behind] = max(late[at + behind], burst - 0.02 * behind)
    late[rng.random(count) < LOST] = np.inf
    return late


def _period(sound: np.ndarray) -> tuple[int, float]:
    """The lag at which the end of `sound` is most like what came before, and how like."""
    width = LAGS[1]
    last = sound[-width:]
    best, like = LAGS[0], -1.0
    size = float(np.sqrt(np.dot(last, last))) + 1e-9
    for lag in range(*LAGS):
        before = sound[-width - lag : -lag]
        found = float(np.dot(last, before)) / (size * (float(np.sqrt(np.dot(before, before))) + 1e-9))
        if found > like:
            best, like = lag, found
    return best, like


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    fade = np.linspace(1, 0, len(first), dtype=np.float32)
    return np.asarray(first * fade + second * (1 - fade), np.float32)


def changed(sound: np.ndarray, longer: bool) -> np.ndarray:
    """30 ms with a period more or less; the same where it does not repeat itself."""
    lag, like = _period(sound)
    if like < LIKE and float(np.sqrt(np.mean(np.square(sound)))) > QUIET:
        return sound
    head, one, two = sound[: -2 * lag], sound[-2 * lag : -lag], sound[-lag:]
    if longer:
        return np.concatenate((head, one, _joined(two, one), two))
    return np.concatenate((head, _joined(one, two)))


def stood_in(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """The sound that is played, 8 kHz; its network is another for each excerpt."""
    sent = np.asarray(soxr.resample(samples, rate_hz, RATE_HZ), np.float32)
    packets = sent[: len(sent) // PACKET * PACKET].reshape(-1, PACKET)
    rng = own_chance(samples)
    late = delays_s(len(packets), rng)
    come = 0.02 * np.arange(len(packets)) + late
    seen: deque[float] = deque(maxlen=WINDOW)
    out = [np.zeros(PACKET, np.float32)]
    waiting = np.zeros(0, np.float32)
    history = np.zeros(4 * LAGS[1], np.float32)
    next_packet, now, faded = 0, 0.04, 0
    while next_packet < len(packets) or len(waiting) >= PACKET:
        while next_packet < len(packets):
            if np.isinf(come[next_packet]) and now > 0.02 * next_packet + 0.3:
                next_packet += 1  # nobody waits for it any longer
            elif come[next_packet] <= now:
                seen.append(float(late[next_packet]))
                waiting = np.concatenate((waiting, packets[next_packet]))
                next_packet += 1
            elif np.isinf(come[next_packet]) and (come[next_packet + 1 : next_packet + 3] <= now).any():
                period, _ = _period(np.concatenate((history, waiting))[-4 * LAGS[1] :])
                whole = np.concatenate((history, waiting))
                waiting = np.concatenate((waiting, 0.8 * np.resize(whole[-period:], PACKET)))
                next_packet += 1
            else:
                break
        target_s = max(0.04, float(np.quantile(seen, 0.97)) + 0.02 if seen else 0.04)
        level_s = len(waiting) / RATE_HZ
        if len(waiting) >= 240 and (level_s > 1.25 * target_s or level_s < 0.75 * target_s):
            waiting = np.concatenate((changed(waiting[:240], level_s < target_s), waiting[240:]))
        if len(waiting) >= PACKET:
            play, waiting = waiting[:PACKET], waiting[PACKET:]
            if faded:
                period, _ = _period(history)
                play = play.copy()
                play[:40] = _joined(np.resize(history[-period:], 40) * 0.8**faded, play[:40])
            faded = 0
        else:
            period, _ = _period(history)
            faded += 1
            play = np.asarray(np.resize(history[-period:], PACKET) * 0.85**faded, np.float32)
        history = np.concatenate((history, play))[-4 * LAGS[1] :]
        out.append(play)
        now += 0.02
    return np.concatenate(out), RATE_HZ
