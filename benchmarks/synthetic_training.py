"""Trains the baseline classifier of synthetic speech, and says what it is worth on who was left out.

    python -m benchmarks.synthetic_training FOLDER            # error rates, machines and people left out
    python -m benchmarks.synthetic_training FOLDER --write    # and consent/checks/baseline.json from all

FOLDER keeps the corpus (`benchmarks/synthetic_corpus.py` says what it needs there) and what was measured of
it: two hours of sound, 2 GB, and half an hour of one core the first time; minutes after that.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks.synthetic_corpus import SOURCES, Corpus
from benchmarks.synthetic_lines import LINES
from benchmarks.synthetic_measured import TraitTable, measure
from benchmarks.synthetic_net import SEED, equal_error, left_out, left_out_sources, met, train
from consent.checks import baseline
from consent.checks.baseline import Network

HELD: Final = 0.05
"""Share of people whom the operating point may call machines. A person so called is heard by a reviewer, who
hears every voice anyway; a machine that is missed may not be heard for one."""
DRAWS: Final = 2_000


def shares(scores: np.ndarray, above: float, groups: np.ndarray) -> tuple[float, float, float]:
    """The mean over groups of the share of scores above; with 95 % of it when groups are drawn anew."""
    each = np.array([(scores[groups == group] > above).mean() for group in np.unique(groups)])
    draws = np.random.default_rng(SEED).integers(0, len(each), (DRAWS, len(each)))
    low, high = np.quantile(each[draws].mean(axis=1), [0.025, 0.975])
    return float(each.mean()), float(low), float(high)


def weighted_threshold(scores: np.ndarray, people: np.ndarray, families: np.ndarray) -> float:
    """Above it are `HELD` of the people, where sources of people weigh by the root of how many they are."""
    who = np.char.add(np.char.add(families, "/"), people)
    weight = np.zeros(len(scores))
    for family in np.unique(families):
        persons = np.unique(who[families == family])
        for person in persons:
            weight[who == person] = 1 / np.sqrt(len(persons)) / (who == person).sum()
    order = np.argsort(-scores)
    passed = np.cumsum(weight[order]) / weight.sum()
    return float(scores[order][np.searchsorted(passed, HELD)])


def told(rate: tuple[float, float, float]) -> str:
    return f"{rate[0]:5.1%} ({rate[1]:.1%} to {rate[2]:.1%})"


@dataclass(frozen=True)
class Tested:
    """Scores of all rows by networks that did not meet what they judge.

    `left_out`: its synthesizer or its person; `met`: of machines, the clip; `sources`: of people, the whole
    source.
    """

    table: TraitTable
    left_out: np.ndarray
    met: np.ndarray
    sources: np.ndarray
    threshold: float

    @classmethod
    def of(cls, table: TraitTable) -> Tested:
        scores = left_out(table)
        people = ~table.machine
        threshold = weighted_threshold(scores[people], table.person[people], table.family[people])
        return cls(table, scores, met(table), left_out_sources(table), threshold)


def report(tested: Tested) -> None:
    """Prints the error rates."""
    table, scores, threshold = tested.table, tested.left_out, tested.threshold
    machine = table.machine
    who = np.char.add(np.char.add(table.family, "/"), table.person)
    families, persons = np.unique(table.family[machine]), np.unique(who[~machine])
    click.echo(
        f"{len(families)} synthesizers with {len(np.unique(who[machine]))} voices, {len(persons)} people; "
        f"{len(np.unique(table.clip))} clips of 5 to 10 s, each over two lines; a clip by itself"
    )
    for title, found in (("left out", scores), ("met, saying other things", tested.met)):
        rate, at = equal_error(scores[~machine], found[machine])
        by_family = [found[machine & (table.family == family)] for family in families]
        by_person = [scores[~machine & (who == person)] for person in persons]
        low, high = spread(by_family, by_person)
        click.echo(
            f"machines {title}: equal error rate {rate:.1%} at {at:+.2f} (95 %: {low:.1%} to {high:.1%}), "
            f"found at {threshold:+.2f}: {told(shares(found[machine], threshold, table.family[machine]))}"
        )
    click.echo(f"people left out, held: {told(shares(scores[~machine], threshold, who[~machine]))}")
    far = shares(tested.sources[~machine], threshold, who[~machine])
    click.echo(f"people whose source was left out, held: {told(far)}")
    click.echo("95 %: over synthesizers and people drawn anew")
    for title, kind, scored in (
        ("machines left out, found", True, scores),
        ("machines met, found", True, tested.met),
        ("people left out, held", False, scores),
        ("their source left out, held", False, tested.sources),
    ):
        click.echo(f"\n{title:<28}{'EER':>7}" + "".join(f"{line:>12}" for line in LINES))
        for family in np.unique(table.family[machine == kind]):
            chosen = (machine == kind) & (table.family == family)
            against = (scores[~machine], scored[chosen]) if kind else (scored[chosen], scores[machine])
            cells = [f"{equal_error(*against)[0]:7.1%}"]
            for line in LINES:
                on_line = scored[chosen & (table.line == line)]
                cells.append(f"{(on_line > threshold).mean():12.0%}" if len(on_line) else f"{'-':>12}")
            click.echo(f"{family:<28}{''.join(cells)}")


def spread(machines: list[np.ndarray], people: list[np.ndarray]) -> tuple[float, float]:
    """95 % of equal error rates when synthesizers and people are drawn anew."""
    chance = np.random.default_rng(SEED)
    rates = []
    for _ in range(300):
        first = np.concatenate([people[k] for k in chance.integers(0, len(people), len(people))])
        second = np.concatenate([machines[k] for k in chance.integers(0, len(machines), len(machines))])
        rates.append(equal_error(first, second)[0])
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def report_strangers(table: TraitTable, network: Network, threshold: float) -> None:
    """Prints what becomes of sources that no network here was trained on, with this one."""
    click.echo(f"\n{'never trained on':<28}{'':>9}{'clips':>7}{'called machines':>17}")
    scores = network.scores(table.values)
    for family in np.unique(table.family):
        chosen = table.family == family
        kind = "machine" if table.machine[chosen][0] else "person"
        clips = len(np.unique(table.clip[chosen]))
        click.echo(f"{family:<28}{kind:>9}{clips:>7}{(scores[chosen] > threshold).mean():17.0%}")


def cost() -> None:
    """Prints the processor's time for 30 s of sound."""
    classifier = baseline.Baseline.load()
    sound = (np.random.default_rng(1).standard_normal(30 * 24_000) * 0.1).astype(np.float32)
    classifier.examine(sound)
    begin = time.process_time()
    classifier.examine(sound)
    click.echo(f"\n30 s of sound: {time.process_time() - begin:.2f} s of one processor")


def as_table(net: Network, threshold: float) -> dict[str, Any]:
    """What baseline.json holds."""

    def numbers(array: np.ndarray) -> Any:
        return np.vectorize(lambda value: float(f"{value:.5g}"))(array).tolist()

    return {
        "recipe": "python -m benchmarks.synthetic_training FOLDER --write",
        "sources": [
            {"family": each.family, "kind": each.kind, "origin": each.origin, "licence": each.licence}
            for each in SOURCES
            if each.trained
        ],
        "threshold": round(threshold, 3),
        "traits": net.names,
        "mean": numbers(net.mean), "scale": numbers(net.scale),
        "first": numbers(net.first), "first_bias": numbers(net.first_bias),
        "second": numbers(net.second), "second_bias": float(f"{net.second_bias:.5g}"),
    }  # fmt: skip


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Train on all, and write consent/checks/baseline.json.")
def main(folder: Path, write: bool) -> None:
    """Reports left-out error rates of the classifier; writes it."""
    everything = measure(Corpus(folder).clips(), folder)
    strangers = np.isin(everything.family, [source.family for source in SOURCES if not source.trained])
    measured = everything.rows(~strangers)
    tested = Tested.of(measured)
    report(tested)
    network = train(measured)
    report_strangers(everything.rows(strangers), network, tested.threshold)
    if not write:
        cost()
        return
    content = (json.dumps(as_table(network, tested.threshold), separators=(",", ":")) + "\n").encode()
    baseline.PATH.write_bytes(content)
    click.echo(f"\n{baseline.PATH}: {len(content)} bytes; SHA256 in consent/checks/baseline.py is to be")
    click.echo(hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    main()
