"""Attacks by somebody who knows everything but the key: averaging, mixing, cutting.

Averaging assumes the best for the attacker: the mark's own level is known, so that residues are normalised as
our detector would, and the residue is added or subtracted with the strength that a true carrier would have.
That alone is noise as loud as the mark, whatever was learnt: controls show what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.watermark_speech import RATE_HZ
from watermark.detect import detect
from watermark.keys import MarkKey
from watermark.mark import HOP, MarkerBank, Shape, levels

CONTROLS = 12


@dataclass(frozen=True)
class Row:
    name: str
    said: str


def mark_calls(key: MarkKey, payloads: list[int], samples: np.ndarray, from_hop: int = 0) -> np.ndarray:
    """The same speech `(n,)`, or one row a call `(B, n)`, in so many calls: float32 `(B, n)`."""
    bank = MarkerBank(key)
    slots = np.array([bank.open(payload) for payload in payloads])
    bank.rest(slots, from_hop)
    block = np.broadcast_to(samples, (len(payloads), samples.shape[-1]))
    whole = block.shape[1] // HOP * HOP
    return np.concatenate(
        [
            np.stack([frame.samples for frame in bank.mark(slots, block[:, at : at + 10 * HOP])])
            for at in range(0, whole, 10 * HOP)
        ],
        axis=1,
    )


def spectra(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Band spectra of hops `(H, 64)` and the levels a mark has in them."""
    shape = Shape.at(RATE_HZ)
    padded = np.concatenate((np.zeros(HOP, np.float32), samples, np.zeros(2 * HOP, np.float32)))
    count = len(samples) // HOP
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP]
    (level,) = levels(shape, padded[: (count + 1) * HOP].reshape(1, -1, HOP))
    found = np.fft.rfft(frames[1 : count + 1] * shape.synthesis, axis=1)[:, 5:69]
    return found, level


def with_carrier(samples: np.ndarray, carrier: np.ndarray, strength: float) -> np.ndarray:
    """`samples` with `strength` times the mark that these chips would make."""
    shape = Shape.at(RATE_HZ)
    _, level = spectra(samples)
    count = min(len(level), len(carrier))
    spectrum = np.zeros((count, HOP + 1), np.complex64)
    spectrum[:, 5:69] = carrier[:count] * level[:count]
    noise = np.fft.irfft(spectrum, 2 * HOP, axis=1) * shape.synthesis
    out = np.zeros((count + 1, HOP))
    out[:-1] += noise[:, :HOP]
    out[1:] += noise[:, HOP:]
    changed = samples.copy()
    flat = out.ravel()[: len(samples)]
    changed[: len(flat)] += (strength * flat).astype(np.float32)
    return changed


def unit(carrier: np.ndarray) -> np.ndarray:
    """The estimate at the chips' own power: an attacker loses nothing by that."""
    return carrier * (np.sqrt(2) / max(1e-9, float(np.sqrt(np.mean(np.abs(carrier) ** 2)))))


def score(samples: np.ndarray, key: MarkKey, payload: int) -> float:
    return detect(samples, RATE_HZ, [key], payloads=[payload], call_s=(0, 120)).score


def averaging(key: MarkKey, talk: np.ndarray, other: np.ndarray, hours: float, calls: int) -> list[Row]:
    """`talk`: speech for one long call, at least a minute; `other`: 10 s to forge onto."""
    payload, target = key.gateway << 48 | 0xA11CE, key.gateway << 48 | 0xB0B
    victim = mark_calls(key, [target], talk[: 10 * RATE_HZ])[0]
    before = score(victim, key, target)

    hops = int(hours * 360_000)
    long_call = mark_calls(key, [payload], np.resize(talk, (1, hops * HOP)))[0]
    rows = []
    for period_s in (1, 4, 10, 60):
        period = period_s * 100
        total = np.zeros((period, 64), np.complex128)
        for at in range(0, hops - period + 1, period):
            found, level = spectra(long_call[at * HOP : (at + period) * HOP])
            total += found / (np.abs(found) + 1e-9) * (level > 0)
        rows.append((f"1 call, {hours:g} h folded at {period_s} s", unit(total)))

    greeting = talk[: 5 * RATE_HZ]
    names = [key.gateway << 48 | n * 7_919 for n in range(calls)]
    marked = np.zeros(len(greeting) // HOP * HOP)
    folded = np.zeros((len(marked) // HOP, 64), np.complex128)
    for at in range(0, calls, 50):
        block = mark_calls(key, names[at : at + 50], greeting)
        marked += block.sum(axis=0)
        for each in block:
            found, _ = spectra(each)
            folded += found / (np.abs(found) + 1e-9)
    mean = (marked / calls).astype(np.float32)
    rows.append((f"{calls} greetings, residues averaged", unit(folded)))
    residue, level = spectra(mean - greeting[: len(mean)])
    _, level = spectra(greeting[: len(mean)])
    known = np.where(level > 1e-6, residue / np.maximum(level, 1e-6), 0)
    rows.append((f"{calls} greetings, unmarked greeting known", unit(known)))

    chance = np.random.default_rng(8).standard_normal((2, CONTROLS, 1_000, 64))
    controls = [unit(carrier) for carrier in chance[0] + 1j * chance[1]]
    changes = [score(with_carrier(victim, each, -1.0), key, target) / before - 1 for each in controls]
    said = f"{np.mean(changes):+.1%}, {min(changes):+.1%} to {max(changes):+.1%}"
    out = [Row(f"control: {CONTROLS} carriers of pure chance", f"score {before:.1f}: {said}")]
    for name, estimate in rows:
        tiled = np.resize(estimate, (1_000, 64))
        after = score(with_carrier(victim, tiled, -1.0), key, target)
        forged = with_carrier(other[: 10 * RATE_HZ], tiled, 1.0)
        passed = detect(forged, RATE_HZ, [key]).detected or score(forged, key, payload) > 7
        out.append(
            Row(
                name,
                f"score {before:.1f} -> {after:.1f} ({after / before - 1:+.1%}), forged: {yes(passed)}",
            )
        )
    again = detect(mean, RATE_HZ, [key])
    out.append(
        Row(
            f"mean of {calls} marked greetings itself",
            f"still ours: {yes(again.detected)} (a limit: see docs)",
        )
    )
    return out


def mixing(key: MarkKey, talk: np.ndarray, other: np.ndarray) -> list[Row]:
    one, two = key.gateway << 48 | 0xA11CE, key.gateway << 48 | 0xB0B
    first = mark_calls(key, [one], talk[: 10 * RATE_HZ])[0]
    second = mark_calls(key, [two], other[: 10 * RATE_HZ])[0]
    second *= np.sqrt(np.mean(first**2) / np.mean(second**2))
    mixed = first + second
    names = detect(mixed, RATE_HZ, [key])
    scores = f"verify scores {score(mixed, key, one):.1f} and {score(mixed, key, two):.1f}"
    who = {one: "the first", two: "the second"}.get(names.payload or 0, "none")
    pieces = np.concatenate([first[at : at + 12_000] for at in range(0, len(first) - 12_000, 24_000)])
    cut = detect(pieces, RATE_HZ, [key])
    return [
        Row("two marked calls mixed, equal level, 10 s", f"{scores}; blind names {who}"),
        Row(
            "every second half second cut out, 10 s",
            f"ours: {yes(cut.detected)}, payload right: {yes(cut.payload == one)}",
        ),
    ]


def yes(truth: bool) -> str:
    return "yes" if truth else "no"
