"""How well the embedded engine tells what callers ask for from what else people say.

    python -m benchmarks.understanding [--every 1] [--languages]     the table, on what it was not tuned on
    python -m benchmarks.understanding --tune                        the constants of ears/evidence.py

Callers are synthetic (espeak-ng in twelve accents, hibari's voice) and say the demo plan's phrases. Humans
are Debian's recorded prompts (asterisk-core-sounds), which say something else; for recall on real voices
there are those whose words their names tell, with these words put into the grammar. All of it over G.711.
Which half of them constants are fitted on goes by a hash of phrase or prompt and speaker.
"""

from __future__ import annotations

import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click
import numpy as np

from model.ears import evidence
from model.ears.evidence import NOTHING, Hearing, weigh
from model.ears.recogniser import Alignment, Recogniser
from model.embedded.dialogue import NO, YES
from tests.model.embedded.callers import (
    ENGLISH,
    LANGUAGES,
    Utterance,
    callers,
    demo_phrases,
    known_humans,
    prompts,
)

CALLERS_SEED = 1
CONFIRMATIONS = {**dict.fromkeys(YES, "yes"), **dict.fromkeys(NO, "no")}
SURE_FALSE, POSSIBLE_FALSE = 0.02, 0.06
"""Shares of the tuned half's prompts that the thresholds let through."""


@dataclass(frozen=True, slots=True)
class HeardUtterance:
    """An utterance and what the recogniser found in it."""

    utterance: Utterance
    found: Alignment | None

    @property
    def right(self) -> bool:
        """The phrase, or another one of the same intent."""
        said, intent = self.utterance.phrase, self.utterance.intent
        if self.found is None or said is None:
            return False
        other = {**demo_phrases(), **CONFIRMATIONS}.get(self.found.phrase)
        return self.found.phrase == said or (intent is not None and intent == other)

    @property
    def hearing(self) -> Hearing:
        return NOTHING if self.found is None else weigh(self.found)


def tuned_on(utterance: Utterance) -> bool:
    return zlib.crc32(f"{utterance.phrase}{utterance.who}".encode()) % 2 == 0


def hear(
    recogniser: Recogniser, utterances: Iterable[Utterance], extra: Iterable[str] = (), own: bool = False
) -> Iterator[HeardUtterance]:
    """`extra` phrases may be said besides the demo plan's; with `own`, the utterance's own."""
    phrases = [*demo_phrases(), *extra]
    for utterance in utterances:
        grammar = [*phrases, utterance.phrase] if own and utterance.phrase else phrases
        yield HeardUtterance(utterance, recogniser.align(utterance.pcm, grammar))


@dataclass(frozen=True, slots=True)
class Shares:
    """What became of some utterances, as shares of all of them."""

    count: int
    found: float
    """the recogniser names any phrase: what it would take without weighing"""
    taken: float
    """for the right intent, or for any when nothing in the grammar was said"""
    asked: float
    """to confirm it, or any"""
    wrong: float
    """taken for, or asked about, another intent than was said"""

    def row(self, name: str) -> str:
        shares = (self.found, self.taken, self.asked, self.taken + self.asked, self.wrong)
        return f"{name:44s} {self.count:5d} " + " ".join(f"{share:8.1%}" for share in shares)


def shares(heard: list[HeardUtterance]) -> Shares:
    count, in_grammar = max(1, len(heard)), any(one.utterance.phrase for one in heard)
    noted = [one for one in heard if one.hearing.phrase is not None]
    good = [one for one in noted if one.right or not in_grammar]
    return Shares(
        len(heard),
        sum(one.found is not None for one in heard) / count,
        sum(one.hearing.sure for one in good) / count,
        sum(not one.hearing.sure for one in good) / count,
        (len(noted) - len(good)) / count,
    )


def fit(said: list[Alignment], other: list[Alignment], prompts_in_all: int) -> None:
    """Prints what belongs into `evidence`: lengths of phones, weights, thresholds."""
    x = np.array([evidence.measures(found) for found in (*said, *other)], np.float64)
    y = np.r_[np.ones(len(said)), np.zeros(len(other))]
    mean, spread = x.mean(0), x.std(0)
    z = np.c_[(x - mean) / spread, np.ones(len(x))]
    each = np.where(y == 1, 0.5 / np.mean(y), 0.5 / np.mean(1 - y))
    ridge = np.diag([1.0] * x.shape[1] + [1e-6])
    w = np.zeros(z.shape[1])
    for _ in range(60):  # Newton's method
        p = 1 / (1 + np.exp(-z @ w))
        gradient = z.T @ (each * (y - p)) - ridge @ w
        w += np.linalg.solve((z * (each * p * (1 - p))[:, None]).T @ z + ridge, gradient)
    weights = w[:-1] / spread
    print(f"WEIGHTS: Final = ({', '.join(f'{one:.4f}' for one in weights)})")
    print(f"BIAS: Final = {w[-1] - np.sum(w[:-1] * mean / spread):.3f}")
    chances = np.sort(1 / (1 + np.exp(-z[y == 0] @ w)))[::-1]
    for name, share in (("SURE", SURE_FALSE), ("POSSIBLE", POSSIBLE_FALSE)):
        print(f"{name}: Final = {chances[int(share * prompts_in_all)]:.2f}")


def lengths(said: list[Alignment]) -> dict[str, tuple[float, float]]:
    """phone -> mean and spread of the logarithm of its frames."""
    logs = defaultdict(list)
    for found in said:
        for phone in (phone for word in found.words for phone in word):
            logs[phone.name].append(math.log(phone.frames))
    return {
        name: (round(float(np.mean(some)), 2), round(max(0.35, float(np.std(some))), 2))
        for name, some in sorted(logs.items())
        if len(some) >= 4
    }


def tune(recogniser: Recogniser) -> None:
    """Fits on the one half."""
    voices = [one for one in hear(recogniser, filter(tuned_on, callers(CALLERS_SEED))) if one.right]
    humans = [one for one in hear(recogniser, filter(tuned_on, known_humans()), own=True) if one.right]
    others = list(hear(recogniser, filter(tuned_on, prompts())))
    # single words read slowly, as humans' are, would make every length usual: they only fill gaps
    spoken = [one.found for one in voices if one.found], [one.found for one in humans if one.found]
    evidence.FRAMES.clear()
    evidence.FRAMES.update(lengths(spoken[1]) | lengths(spoken[0]))
    print("FRAMES =", evidence.FRAMES)
    fit([*spoken[0], *spoken[1]], [one.found for one in others if one.found], len(others))


def report(recogniser: Recogniser, every: int, languages: bool) -> None:
    """Measures on the other half."""
    begun = time.process_time()
    print(f"{'':44s} {'':5s}    found    taken    asked   either    wrong")

    def row(name: str, heard: Iterable[HeardUtterance]) -> None:
        print(shares(list(heard)).row(name), flush=True)

    def held_out(utterances: Iterable[Utterance]) -> list[Utterance]:
        return [one for one in utterances if not tuned_on(one)][::every]

    synthetic = list(hear(recogniser, held_out(callers(CALLERS_SEED))))
    row("synthetic callers, the demo plan's phrases", synthetic)
    row("  of them hibari", (one for one in synthetic if one.utterance.who.startswith("hibari")))
    row("  of them espeak-ng", (one for one in synthetic if one.utterance.who.startswith("espeak")))
    row("humans, their words in the grammar", hear(recogniser, held_out(known_humans()), own=True))
    english = held_out(prompts())
    row("humans, English, out of grammar", hear(recogniser, english))
    confirming = list(hear(recogniser, english, (*YES, *NO)))
    row("  while yes or no is waited for", confirming)
    yes = [one for one in confirming if one.hearing.sure and one.hearing.phrase in YES]
    print(f"  {'of these taken for a yes':48s} {len(yes) / max(1, len(confirming)):26.1%}")
    spoken = callers(CALLERS_SEED, phrases=CONFIRMATIONS)
    row("synthetic callers, yes and no", hear(recogniser, held_out(spoken), (*YES, *NO)))
    for language in LANGUAGES:
        if languages and language != ENGLISH:
            some = list(prompts(language))[::every]
            row(f"humans, {language[:5]}, out of grammar", hear(recogniser, some))
    print(f"{time.process_time() - begun:.0f} s of CPU, synthesis included")


@click.command()
@click.option("--tune", "tuning", is_flag=True, help="fit the constants of model/ears/evidence.py")
@click.option("--every", default=1, help="only every n-th utterance")
@click.option("--languages", is_flag=True, help="also prompts in four other languages")
def main(tuning: bool, every: int, languages: bool) -> None:
    """The embedded engine's understanding."""
    recogniser = Recogniser()
    if tuning:
        tune(recogniser)
    else:
        report(recogniser, every, languages)


if __name__ == "__main__":
    main()
