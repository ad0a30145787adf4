"""A blind listening test: `python -m benchmarks.watermark.listening_page` writes it, `--score` reads answers.

benchmarks/out/listening/index.html is a page that needs no server and no network: pairs of the same words,
one plain and one marked, in an order that nobody knows who has not opened key.json, which lies beside the
folder and not in it. A third of the pairs have the carrier alone, as keys of version 1 mark: what the
envelope layer adds is the difference. The page gives a listener's answers as a file, and `--score FILE ...`
says how often each kind was told from the plain one. Of pairs that sound alike people guess half; the
printed probability is that of guessing so well or better.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
from math import comb
from pathlib import Path
from typing import Final

import click
import numpy as np

from benchmarks.watermark.host_speech import PROMPTS, RATE_HZ, VOICES, speech
from watermark import sound
from watermark.keys import BOTH_LAYERS, CARRIER_ALONE, MarkKey
from watermark.mark import Marker

OUT: Final = Path(__file__).parents[1] / "out"
FOLDER: Final = OUT / "listening"
KEY: Final = OUT / "listening-key.json"
SECONDS: Final = 5
KINDS: Final = {
    "carrier alone": (CARRIER_ALONE, 1.5),
    "both layers, 1.5 dB": (BOTH_LAYERS, 1.5),
    "both layers, 2 dB": (BOTH_LAYERS, 2.0),
}

PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<title>Which one is marked?</title>
<style>
  body { font: 16px sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em }
  fieldset { margin: 1em 0; border: 1px solid #999 } audio { vertical-align: middle; height: 2em }
</style>
<h1>Which one is marked?</h1>
<p>Use headphones in a quiet room. In each pair one sound is as the voice spoke it, the other carries a mark.
Listen as often as you like and say which one is marked; guess where you cannot tell.</p>
<form>PAIRS</form>
<p><button type="button" id="save">Save my answers</button> <span id="said" role="status"></span></p>
<script>
  document.getElementById("save").onclick = () => {
    const given = Object.fromEntries(new FormData(document.forms[0]));
    const missing = document.querySelectorAll("fieldset").length - Object.keys(given).length;
    document.getElementById("said").textContent = missing ? missing + " pairs have no answer yet." : "";
    if (missing) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(given)], { type: "application/json" }));
    link.download = "answers.json";
    link.click();
  };
</script>
"""
PAIR: Final = """
<fieldset><legend>Pair {number}</legend>
  <label><input type="radio" name="{name}" value="a"> A</label> <audio controls src="{name}-a.wav"></audio>
  <label><input type="radio" name="{name}" value="b"> B</label> <audio controls src="{name}-b.wav"></audio>
</fieldset>"""


def write(prompts: Path) -> int:
    """The page, its sounds and its key; how many pairs there are."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    chance = random.SystemRandom()
    key: dict[str, dict[str, str]] = {}
    for voice in VOICES:
        plain = speech(voice, len(KINDS) * SECONDS + 1.0, prompts)
        if plain is None:
            continue
        for at, (kind, layers) in enumerate(KINDS.items()):
            clip = plain[at * SECONDS * RATE_HZ : (at + 1) * SECONDS * RATE_HZ]
            name, marked = f"p{secrets.token_hex(4)}", chance.choice("ab")
            for place in "ab":
                heard = clip if place != marked else _marked(clip, *layers)
                sound.write(FOLDER / f"{name}-{place}.wav", heard, RATE_HZ)
            key[name] = {"marked": marked, "kind": kind, "voice": voice}
    names = list(key)
    chance.shuffle(names)
    pairs = "".join(PAIR.format(number=at, name=name) for at, name in enumerate(names, start=1))
    (FOLDER / "index.html").write_text(PAGE.replace("PAIRS", pairs))
    KEY.write_text(json.dumps(key, indent=1))
    return len(names)


def _marked(clip: np.ndarray, version: int, depth_db: float) -> np.ndarray:
    mark = MarkKey("wm-be9c", 0xBE9C, secrets.token_bytes(32), version, depth_db)
    marker = Marker(mark, 0xBE9C << 48 | secrets.randbits(48))
    return np.concatenate((marker.mark(clip).samples, marker.flush().samples))[marker.delay_samples :]


def scored(
    key: dict[str, dict[str, str]], answers: list[dict[str, str]]
) -> dict[str, tuple[int, int, float]]:
    """For each kind: pairs that were told apart, pairs, and the probability of so many by guessing."""
    out: dict[str, tuple[int, int, float]] = {}
    for kind in KINDS:
        told = [
            given[name] == key[name]["marked"]
            for given in answers
            for name in given
            if key[name]["kind"] == kind
        ]
        right, of = sum(told), len(told)
        out[kind] = (right, of, sum(comb(of, n) for n in range(right, of + 1)) / 2**of)
    return out


@click.command()
@click.option("--prompts", type=click.Path(path_type=Path), default=PROMPTS, show_default=True)
@click.option(
    "--score", "files", multiple=True, type=click.Path(path_type=Path, exists=True), help="Answers."
)
def main(prompts: Path, files: tuple[Path, ...]) -> None:
    """Writes the page, or scores what listeners said."""
    if not files:
        pairs = write(prompts)
        click.echo(f"{pairs} pairs: open {FOLDER / 'index.html'}; who listens does not open {KEY}")
        return
    answers = [json.loads(path.read_text()) for path in files]
    for kind, (right, of, chance) in scored(json.loads(KEY.read_text()), answers).items():
        click.echo(f"{kind:22s} told apart {right} of {of}; by guessing p = {chance:.2g}")


if __name__ == "__main__":
    main()
