"""Speech to text on human prompts, with the weights of `make run`, and what must not become text."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ears_sounds import english as english_prompts
from benchmarks.ears_sounds import g711, wrong_words
from benchmarks.ears_sounds import words as spoken
from consent.checks.sound import read
from consent.errors import LanguageError, ModelFileError, ModelFileMissing
from consent.models.model_files import locked_model
from consent.whisper.features import Floats
from consent.whisper.transcript import Transcript
from consent.whisper.whisper import ENGLISH, Whisper, compression
from tests.needs import need_model, need_sounds

HEARD = {
    "conf-unmuted": "you are now unmuted",
    "conf-waitforleader": "the conference will begin when the leader arrives",
    "vm-nonumber": "i'm afraid i don't know who sent this message",
    "conf-userswilljoin": "users will join the conference",
}


@pytest.fixture(scope="module")
def english() -> Whisper:
    return Whisper.load(ENGLISH, need_model(ENGLISH), workers=2)


def prompt(name: str) -> Floats:
    """A human prompt at 16 kHz."""
    return read(need_sounds() / f"{name}.wav").at_16k


def words(transcript: Transcript) -> str:
    return transcript.text.lower().rstrip(".").replace(",", "")


def test_what_people_say_is_written_down(english: Whisper) -> None:
    for name, text in HEARD.items():
        transcript = english.transcribe(prompt(name), "en")
        assert words(transcript) == text
        assert transcript.language == "en"
        assert transcript.refused == ""
        assert -0.5 < transcript.log_probability < 0.0


def test_a_dozen_prompts_over_g711_have_few_wrong_words(english: Whisper) -> None:
    need_sounds()
    dozen = [prompt for prompt in english_prompts(1) if len(prompt.said) > 4][5::11][:12]
    assert len(dozen) == 12
    chance = np.random.default_rng(1)
    wrong = [
        wrong_words(prompt.said, spoken(english.transcribe(g711(prompt.pcm, chance), "en").text))
        for prompt in dozen
    ]
    assert sum(wrong) < 0.15 * sum(len(prompt.said) for prompt in dozen)
    assert sum(count == 0 for count in wrong) > 6


def test_what_is_longer_than_the_window_is_heard_in_pieces(english: Whisper) -> None:
    pause = np.zeros(8_000, np.float32)
    whole = np.concatenate([part for name in HEARD for part in (prompt(name), pause, pause)])
    assert len(whole) > 10 * 16_000
    said = words(english.transcribe(whole, "en")).replace(".", "")
    assert said == " ".join(HEARD.values())


@pytest.mark.parametrize("kind", ["nothing", "a moment", "silence", "noise", "hum", "key tones"])
def test_what_is_no_speech_has_no_words(english: Whisper, kind: str) -> None:
    chance = np.random.default_rng(5)
    time = np.arange(5 * 16_000) / 16_000
    sound = {
        "nothing": np.zeros(0),
        "a moment": 0.1 * chance.standard_normal(100),
        "silence": np.zeros(len(time)),
        "noise": 0.1 * chance.standard_normal(len(time)),
        "hum": 0.2 * np.sin(2 * np.pi * 50 * time) + 0.1 * np.sin(2 * np.pi * 150 * time),
        "key tones": 0.2
        * (np.sin(2 * np.pi * 770 * time) + np.sin(2 * np.pi * 1336 * time))
        * (time % 0.2 < 0.1),
    }[kind]
    assert english.transcribe(sound.astype(np.float32), "en") == Transcript("", "en", 0.0, 1.0, "silence")


def test_what_nobody_wants_to_know_any_more_is_left(english: Whisper) -> None:
    sound = prompt("conf-unmuted")
    for steps in (0, 1):
        wanted = iter([True] * steps + [False])
        transcript = english.transcribe(sound, "en", lambda: next(wanted))  # noqa: B023 - used at once
        assert (transcript.text, transcript.refused) == ("", "taken back")


def test_two_threads_hear_at_once(english: Whisper) -> None:
    heard: dict[str, str] = {}

    def hear(name: str) -> None:
        heard[name] = words(english.transcribe(prompt(name), "en"))

    threads = [threading.Thread(target=hear, args=(name,)) for name in HEARD]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == HEARD


def test_a_model_of_english_knows_no_other_language(english: Whisper) -> None:
    with pytest.raises(LanguageError, match="whisper-tiny-en does not know the language 'de'"):
        english.transcribe(prompt("conf-unmuted"), "de")
    with pytest.raises(LanguageError, match="English only"):
        english.languages(prompt("conf-unmuted"))


def test_a_sentence_without_an_end_is_told_by_how_it_packs() -> None:
    assert compression(" ".join(["and one more", "and one more"] * 8)) > 2.0
    for text in HEARD.values():
        assert compression(text) < 1.2


@pytest.mark.parametrize("harm", ["missing", "cut", "other", "grown"])
def test_files_that_are_not_the_locked_ones_are_refused(tmp_path: Path, harm: str) -> None:
    source = need_model(ENGLISH)
    for path in locked_model(ENGLISH).paths(source):
        if path.suffix == ".bin":
            (tmp_path / path.name).symlink_to(path)
        else:
            shutil.copy(path, tmp_path)
    vocabulary = tmp_path / "whisper-tiny-en.txt"
    content = vocabulary.read_bytes()
    if harm == "missing":
        vocabulary.unlink()
    else:
        harmed = {"cut": content[:-1], "other": b"?" + content[1:], "grown": content + b"\n"}
        vocabulary.write_bytes(harmed[harm])
    with pytest.raises(
        ModelFileError, match=r"whisper-tiny-en.*voicegate models get whisper-tiny-en"
    ) as refusal:
        Whisper.load(ENGLISH, tmp_path)
    assert isinstance(refusal.value, ModelFileMissing) == (harm == "missing")
