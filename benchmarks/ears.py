"""How well the ears hear, and what it costs: `python -m benchmarks.ears [--every 1] [--calls 1,8,20,40]`.

One run prints one table: words that are wrong (insertions, deletions and substitutions over the words said)
when human English prompts come by several lines; which of five languages is heard; words that are written
where nobody speaks; and callers who talk at once to a process of ears, in real time. The prompts are Debian's
asterisk-core-sounds, their English texts stand in benchmarks/prompts; hold music is that of
asterisk-moh-opsound-wav, if it is installed. `whisper-base` takes part if it was fetched.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.ears_load import report_calls
from benchmarks.ears_sounds import (
    VOICES,
    Babble,
    Line,
    english,
    g711,
    g722,
    losing,
    nobody,
    opus24,
    some_of,
    words,
    wrong_words,
)
from consent.data_dir import default_data_dir
from consent.errors import ModelFileError
from consent.models.model_files import models_dir
from consent.whisper.whisper import ENGLISH, MANY, Whisper


def report_words(whispers: list[Whisper], every: int) -> None:
    prompts = english(every)
    count = sum(len(prompt.said) for prompt in prompts)
    print(f"\n{len(prompts)} human English prompts, {count} words")
    print(f"{'':28s}{'words wrong':>12s}{'no word wrong':>15s}{'refused':>9s}{'CPU-s each':>12s}")
    lines: dict[str, Line] = {
        "G.711": g711, "G.711, 5 % lost": losing, "G.722": g722, "Opus, 24 kbit/s": opus24,
        "babble 20 dB, G.711": Babble(20), "babble 15 dB, G.711": Babble(15),
        "babble 10 dB, G.711": Babble(10),
    }  # fmt: skip
    for whisper in whispers:
        for name, line in lines.items():
            if whisper.name == MANY and name != "G.711":
                continue
            chance = np.random.default_rng(1)
            sounds = [line(prompt.pcm, chance) for prompt in prompts]
            before = time.process_time()
            heard = [whisper.transcribe(sound, "en") for sound in sounds]
            spent_s = time.process_time() - before
            wrong = [wrong_words(p.said, words(one.text)) for p, one in zip(prompts, heard, strict=True)]
            refused = sum(bool(one.refused) for one in heard)
            print(
                f"{whisper.name.removeprefix('whisper-'):8s}{name:20s}{sum(wrong) / count:12.1%}"
                f"{np.mean(np.array(wrong) == 0):15.1%}{refused:9d}{spent_s / len(prompts):12.3f}",
                flush=True,
            )


def report_languages(whisper: Whisper, every: int) -> None:
    print("\nwhich of five languages, G.711, utterances of 1.5 s or more")
    chance = np.random.default_rng(2)
    for language in VOICES:
        prompts = some_of(language, every)
        right = 0
        for prompt in prompts:
            found = whisper.languages(g711(prompt.pcm, chance))
            right += next(name for name, _ in found if name in VOICES) == language
        print(f"  {language}: {right} of {len(prompts)}", flush=True)


def report_nobody(whispers: list[Whisper], seconds: int) -> None:
    print(f"\nnobody speaks: pieces of 10 s with words ({seconds} s of each kind)")
    for whisper in whispers:
        pieces: dict[str, int] = {}
        written: dict[str, list[str]] = {}
        before = time.process_time()
        for name, pcm in nobody(seconds):
            text = whisper.transcribe(pcm, "en").text
            pieces[name] = pieces.get(name, 0) + 1
            written.setdefault(name, [])
            if text:
                written[name].append(text)
        told = ", ".join(f"{name} {len(written[name])} of {count}" for name, count in pieces.items())
        print(f"  {whisper.name}: {told}; {time.process_time() - before:.0f} CPU-s", flush=True)
        for name, texts in written.items():
            if texts:
                print(f"    {name}: {'; '.join(texts[:5])}")


@click.command()
@click.option("--every", default=1, help="only every n-th prompt")
@click.option("--calls", default="1,8,20,40", help="callers at once, one run each; empty: none")
@click.option("--seconds", default=30.0, help="of each of these runs")
@click.option("--nobody-s", default=600, help="of each kind of sound without speech")
def main(every: int, calls: str, seconds: float, nobody_s: int) -> None:
    """The ears: words wrong, languages, words from nobody, callers at once."""
    data_dir = Path(os.environ.get("VOICEGATE_DATA_DIR") or default_data_dir())
    named = os.environ.get("VOICEGATE_MODELS")
    models = models_dir(data_dir, Path(named) if named else None)
    whispers = []
    for name in (ENGLISH, MANY):
        try:
            whispers.append(Whisper.load(name, models))
        except ModelFileError as error:
            print(f"without {name}: {error}")
    report_words(whispers, every)
    if whispers and whispers[-1].multilingual:
        report_languages(whispers[-1], every)
    report_nobody(whispers, nobody_s)
    counts = [int(one) for one in calls.split(",") if one]
    whispers.clear()  # the process that callers talk to has its own
    if counts:
        asyncio.run(report_calls(models, counts, seconds, english(every)))


if __name__ == "__main__":
    main()
