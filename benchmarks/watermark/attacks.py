"""Attacks by somebody who knows everything but the key: averaging, mixing, cutting.

Averaging assumes the best for the attacker: the mark's own level is known, so that residues are normalised as
our detector would, and the residue is added or subtracted with the strength that a true carrier would have.
That alone is noise as loud as the mark, whatever was learnt: controls show what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.watermark.host_speech import RATE_HZ
from watermark import carrier, code
from watermark.detect import detect
from watermark.errors import MarkError
from watermark.frames import MarkedFrame
from watermark.keys import MarkKey
from watermark.mark import HOP, MarkerBank, Shape, levels

CONTROLS = 12
HOPS = 1_000


@dataclass(frozen=True)
class AttackRow:
    name: str
    said: str


def _samples(marked: MarkedFrame | MarkError) -> np.ndarray:
    """Raises `MarkError`."""
    if isinstance(marked, MarkError):
        raise marked
    return marked.samples


def mark_calls(key: MarkKey, payloads: list[int], samples: np.ndarray, from_hop: int = 0) -> np.ndarray:
    """The same speech `(n,)`, or one row a call `(B, n)`, in so many calls: float32 `(B, n)`."""
    bank = MarkerBank(key)
    slots = np.array([bank.open(payload) for payload in payloads])
    bank.rest(slots, from_hop)
    block = np.broadcast_to(samples, (len(payloads), samples.shape[-1]))
    whole = block.shape[1] // HOP * HOP
    return np.concatenate(
        [
            np.stack([_samples(frame) for frame in bank.mark(slots, block[:, at : at + 10 * HOP])])
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


def with_carrier(samples: np.ndarray, chips: np.ndarray, strength: float) -> np.ndarray:
    """`samples` with `strength` times the mark that these chips would make."""
    shape = Shape.at(RATE_HZ)
    _, level = spectra(samples)
    count = min(len(level), len(chips))
    spectrum = np.zeros((count, HOP + 1), np.complex64)
    spectrum[:, 5:69] = chips[:count] * level[:count]
    noise = np.fft.irfft(spectrum, 2 * HOP, axis=1) * shape.synthesis
    out = np.zeros((count + 1, HOP))
    out[:-1] += noise[:, :HOP]
    out[1:] += noise[:, HOP:]
    changed = samples.copy()
    flat = out.ravel()[: len(samples)]
    changed[: len(flat)] += (strength * flat).astype(np.float32)
    return changed


def unit(estimate: np.ndarray) -> np.ndarray:
    """The estimate at the chips' own power: an attacker loses nothing by that."""
    return estimate * (np.sqrt(2) / max(1e-9, float(np.sqrt(np.mean(np.abs(estimate) ** 2)))))


def score(samples: np.ndarray, key: MarkKey, payload: int, hop: int = 0) -> float:
    """Verified as that call's, within a minute of its hop."""
    window = (max(0.0, hop / 100 - 60), hop / 100 + 60)
    return detect(samples, RATE_HZ, [key], payloads=[payload], call_s=window).score


@dataclass(frozen=True)
class Victim:
    """10 s of a marked call from `hop` on."""

    key: MarkKey
    payload: int
    hop: int
    samples: np.ndarray

    @classmethod
    def of(cls, key: MarkKey, payload: int, hop: int, talk: np.ndarray) -> Victim:
        return cls(key, payload, hop, mark_calls(key, [payload], talk[: 10 * RATE_HZ], hop)[0])

    def score(self, samples: np.ndarray) -> float:
        return score(samples, self.key, self.payload, self.hop)

    def chips(self) -> np.ndarray:
        coded, hops = code.encode(self.payload), self.hop + np.arange(HOPS)
        return carrier.call_chips(self.key, self.payload, coded, hops)

    def control(self, name: str) -> AttackRow:
        """What subtracting chance costs."""
        before = self.score(self.samples)
        chance = np.random.default_rng(8).standard_normal((2, CONTROLS, HOPS, 64))
        carriers = [unit(each) for each in chance[0] + 1j * chance[1]]
        changes = [self.score(with_carrier(self.samples, each, -1.0)) / before - 1 for each in carriers]
        said = f"{np.mean(changes):+.1%}, {min(changes):+.1%} to {max(changes):+.1%}"
        return AttackRow(f"{name}, control: {CONTROLS} of pure chance", f"score {before:.1f}: {said}")

    def subtracted(self, name: str, residue: np.ndarray) -> AttackRow:
        """Sound taken away from the beginning, as loud as it is."""
        changed = self.samples.copy()
        changed[: len(residue)] -= residue
        before, after = self.score(self.samples), self.score(changed)
        return AttackRow(name, f"score {before:.1f} -> {after:.1f} ({after / before - 1:+.1%})")

    def attacked(self, name: str, estimate: np.ndarray, other: np.ndarray) -> AttackRow:
        """`estimate`: a carrier `(n, 64)`, repeated as often as needed, made as loud as the mark. `learnt` is
        standard normal where nothing was."""
        tiled = np.resize(unit(estimate), (HOPS, 64))
        learnt = float((tiled * np.conj(self.chips())).real.sum() / np.sqrt(np.square(np.abs(tiled)).sum()))
        before, after = self.score(self.samples), self.score(with_carrier(self.samples, tiled, -1.0))
        forged = with_carrier(other[: 10 * RATE_HZ], tiled, 1.0)
        passed = detect(forged, RATE_HZ, [self.key]).detected or self.score(forged) > 7
        return AttackRow(
            name,
            f"score {before:.1f} -> {after:.1f} ({after / before - 1:+.1%}); learnt: z = {learnt:+.1f}; "
            f"forged: {yes(passed)}",
        )


def one_call(key: MarkKey, talk: np.ndarray, other: np.ndarray, hours: float) -> list[AttackRow]:
    """A call's first hours, folded at some periods, against its next 10 s. `talk`: a minute or more."""
    payload, hops = key.gateway << 48 | 0xA11CE, int(hours * 360_000)
    long_call = mark_calls(key, [payload], np.resize(talk, (1, hops * HOP)))[0]
    victim = Victim.of(key, payload, hops, talk)
    rows = [
        victim.control(f"1 call, {hours:g} h"),
        victim.attacked("1 call, control: its own chips, by the key", victim.chips(), other),
    ]
    for period_s in (1, 4, 10, 60):
        period = period_s * 100
        total = np.zeros((period, 64), np.complex128)
        for at in range(0, hops - period + 1, period):
            found, level = spectra(long_call[at * HOP : (at + period) * HOP])
            total += found / (np.abs(found) + 1e-9) * (level > 0)
        rows.append(victim.attacked(f"1 call, {hours:g} h folded at {period_s} s", total, other))
    return rows


def greetings(key: MarkKey, talk: np.ndarray, other: np.ndarray, calls: int) -> list[AttackRow]:
    """The same 5 s at the beginning of so many calls, against another call's beginning."""
    victim = Victim.of(key, key.gateway << 48 | 0xB0B, 0, talk)
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
    residue, _ = spectra(mean - greeting[: len(mean)])
    _, level = spectra(greeting[: len(mean)])
    known = np.where(level > 1e-6, residue / np.maximum(level, 1e-6), 0)
    again = detect(mean, RATE_HZ, [key]).detected
    return [
        victim.control(f"{calls} greetings"),
        victim.attacked(f"{calls} greetings, phases averaged", folded, other),
        victim.subtracted(
            f"{calls} greetings, unmarked greeting known, as it is", mean - greeting[: len(mean)]
        ),
        victim.attacked(f"{calls} greetings, unmarked greeting known", known, other),
        AttackRow(
            f"mean of {calls} marked greetings itself", f"still ours: {yes(again)} (a limit: see docs)"
        ),
    ]


def mixing(key: MarkKey, talk: np.ndarray, other: np.ndarray) -> list[AttackRow]:
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
        AttackRow("two marked calls mixed, equal level, 10 s", f"{scores}; blind names {who}"),
        AttackRow(
            "every second half second cut out, 10 s",
            f"ours: {yes(cut.detected)}, payload right: {yes(cut.payload == one)}",
        ),
    ]


def yes(truth: bool) -> str:
    return "yes" if truth else "no"
