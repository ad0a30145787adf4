"""The house's recogniser of statements: what it hears, and what it leaves to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from consent.checks.checklist import Checks, Earlier, Finding, Material
from consent.checks.sound import MAX_S, Floats, read
from consent.checks.words import HouseRecogniser, WordsUnknown
from consent.errors import ModelFileError, RegistrationError
from consent.models.model_files import locked_model
from consent.statements.comparison import HeardText, match
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import tokens
from consent.statements.statement import Statement, Terms, render
from consent.whisper.transcript import HeardPiece, Refusal, Transcript
from consent.whisper.whisper import MANY, Whisper
from model.embedded.mouth import Mouth
from tests.consent.conftest import PlannedClassifier, PlannedMark, PlannedSpeaker, prompt
from tests.needs import HANGS_S, need_model, need_sounds

SECOND = np.zeros(16_000, np.float32)
COMMAND = f"voicegate models get {MANY}"


# ── with a double of the model ───────────────────────────────────────────────────────────────────────────


@dataclass
class PlannedWhisper:
    """Double: hears these pieces; says how many it was asked for."""

    says: list[tuple[str, Refusal]] = field(default_factory=lambda: [("I consent.", "")])
    asked: int = 0
    seconds: float = 7.0
    likely: list[float] = field(default_factory=lambda: [0.95] * 9)
    weighed: list[tuple[int, list[str]]] = field(default_factory=list)

    def pieces(self, pcm_16k: Floats, language: str) -> Iterator[HeardPiece]:
        for (text, refused), likely in zip(self.says, self.likely, strict=False):
            self.asked += 1
            transcript = Transcript(text, language, -0.1, 0.0, refused)
            yield HeardPiece(transcript, self.seconds, likely, tuple((word, 0.9) for word in text.split()))

    def log_likelihoods(self, pcm_16k: Floats, language: str, piece: int, texts: list[str]) -> list[float]:
        self.weighed.append((piece, texts))
        return [-1.0 for _ in texts]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with files of the right names and sizes, and nothing in them."""
    for file in locked_model(MANY).files:
        path = tmp_path / locked_model(MANY).file_name(file)
        path.touch()
        with path.open("r+b") as opened:
            opened.truncate(file.size)
    return tmp_path


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> PlannedWhisper:
    planned = PlannedWhisper()
    monkeypatch.setattr(Whisper, "load", lambda name, directory: planned)
    return planned


def ended(recogniser: HouseRecogniser) -> None:
    """Waits for the clock that lets the weights go."""
    clock = recogniser._clock
    assert clock is not None
    clock.join(HANGS_S)
    assert not clock.is_alive()


def test_the_weights_come_with_the_first_statement_and_go_after_the_last(
    models: Path, whisper: PlannedWhisper
) -> None:
    recogniser = HouseRecogniser(models, kept_s=0.2)
    assert not recogniser.is_loaded
    assert recogniser.transcribe(SECOND, "en").text == "I consent."
    assert recogniser.is_loaded
    ended(recogniser)
    assert not recogniser.is_loaded
    assert recogniser.transcribe(SECOND, "en").text == "I consent.", "and come again"


def test_a_later_statement_keeps_the_weights(models: Path, whisper: PlannedWhisper) -> None:
    recogniser = HouseRecogniser(models, kept_s=3600.0)
    recogniser.transcribe(SECOND, "en")
    recogniser._let_go()  # the clock of an earlier statement
    assert recogniser.is_loaded


def test_clocks_do_not_pile_up_and_keep_no_process(models: Path, whisper: PlannedWhisper) -> None:
    recogniser = HouseRecogniser(models, kept_s=3600.0)
    clocks = []
    for _ in range(5):
        recogniser.transcribe(SECOND, "en")
        assert recogniser._clock is not None
        clocks.append(recogniser._clock)
    assert all(clock.daemon for clock in clocks)
    for clock in clocks[:-1]:
        clock.join(HANGS_S)
    assert [clock.is_alive() for clock in clocks] == [False] * 4 + [True]


@pytest.mark.parametrize("refused", ["no speech", "improbable", "loop"])
def test_a_part_that_the_model_is_not_sure_of_is_for_people(
    models: Path, whisper: PlannedWhisper, refused: Refusal
) -> None:
    """Left out of the text it would hide whatever was said there."""
    whisper.says = [("My name is Jane Doe.", ""), ("", refused), ("I consent.", "")]
    with pytest.raises(WordsUnknown, match=rf"not sure .*\({refused}\)"):
        HouseRecogniser(models).transcribe(SECOND, "en")
    assert whisper.asked == 2, "what comes after it is not heard: the people's time is not the machine's"


def test_a_pause_is_nothing(models: Path, whisper: PlannedWhisper) -> None:
    whisper.says = [("", "silence"), ("My name is Jane Doe.", ""), ("", "silence"), ("I consent.", "")]
    heard = HouseRecogniser(models).transcribe(SECOND, "en")
    assert heard.text == "My name is Jane Doe. I consent."
    assert [word for word, _ in heard.words] == heard.text.split()


def test_another_language_than_the_statements_is_for_people(models: Path, whisper: PlannedWhisper) -> None:
    """The model writes an English statement for what is read in German."""
    recogniser = HouseRecogniser(models)
    for whisper.says, whisper.likely in (
        ([("I consent.", "")] * 3, [0.4, 0.3, 0.6]),  # in the mean
        ([("I consent.", "")] * 3, [0.99, 0.05, 0.99]),  # a sentence of it
    ):
        with pytest.raises(WordsUnknown, match="another language than 'en'"):
            recogniser.transcribe(SECOND, "en")
    whisper.likely = [0.99, 0.3, 0.99]
    assert recogniser.transcribe(SECOND, "en").text == "I consent. I consent. I consent."
    whisper.likely, whisper.seconds = [0.99, 0.05, 0.99], 2.0
    assert recogniser.transcribe(SECOND, "en").text, "a name or a few numbers are of any"


def test_an_hour_is_not_heard_at_all(models: Path, whisper: PlannedWhisper) -> None:
    recogniser = HouseRecogniser(models)
    with pytest.raises(WordsUnknown, match=f"longer than {MAX_S:.0f} s"):
        recogniser.transcribe(np.zeros(3600 * 16_000, np.float32), "en")
    assert (whisper.asked, recogniser.is_loaded) == (0, False)


def test_files_that_are_not_the_locked_ones_leave_the_words_to_people(models: Path) -> None:
    recogniser = HouseRecogniser(models)
    for _ in range(2):
        with pytest.raises(WordsUnknown, match=f"another SHA-256.*{COMMAND}"):
            recogniser.transcribe(SECOND, "en")
    assert not recogniser.is_loaded
    (models / "whisper-base.bin").unlink()
    with pytest.raises(WordsUnknown, match=f"not in .*{COMMAND}"):
        HouseRecogniser(models)


# ── in the checks ────────────────────────────────────────────────────────────────────────────────────────


def statement(spoken: str = "en") -> Statement:
    terms = Terms("Jane Doe", "Acme", ("support",), (spoken,), date(2027, 6, 30), spoken=spoken)
    return render(terms, LEXICA[spoken].words[:4], [9, 0, 3, 2])


def finding(checks: Checks, spoken: str = "en") -> Finding:
    """What the check of the words finds in a prompt, which is no statement."""
    checks.speaker, checks.own_mark, checks.classifier = PlannedSpeaker(), PlannedMark(), PlannedClassifier()
    material = Material((prompt("demo-congrats"),), prompt("basic-pbx-ivr-main"), statement(spoken))
    return checks.run(material, Earlier()).findings[-1]


def test_without_the_model_the_words_go_to_people_and_the_command_is_named(tmp_path: Path) -> None:
    found = finding(Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models"))
    assert (found.check, found.verdict) == ("statement words", "review")
    assert COMMAND in found.detail
    assert "listen and compare each word" in found.detail
    lacking = list(Checks.lacking(tmp_path / "models"))
    assert ["voicegate models get speaker" in lacking[0], COMMAND in lacking[1]] == [True, True]


@pytest.mark.parametrize(
    ("says", "verdict", "detail"),
    [
        ([(statement().text, "")], "passed", "all heard"),
        ([("Okay.", ""), (statement().text, "")], "review", "'okay' before the statement"),
        ([(statement().text, ""), ("", "improbable")], "review", "improbable"),
        ([(statement().text.replace("nine", "four"), "")], "refused", "read it again"),
        ([("", "silence")], "refused", "read it again"),
    ],
)  # fmt: skip
def test_what_becomes_of_what_was_heard(
    models: Path, whisper: PlannedWhisper, says: Any, verdict: str, detail: str
) -> None:
    whisper.says = says
    found = finding(Checks(recogniser=HouseRecogniser(models)))
    assert (found.check, found.verdict) == ("statement words", verdict)
    assert detail in found.detail


def test_a_name_that_was_not_heard_is_asked_of_the_sound_in_its_own_piece(
    models: Path, whisper: PlannedWhisper
) -> None:
    before, after = statement().text.split("Acme")
    whisper.says = [(before.replace(" to ", " to acting"), ""), (after, "")]
    found = finding(Checks(recogniser=HouseRecogniser(models)))
    assert found.verdict == "review"
    assert "'Acme', which was heard as 'acting'" in found.detail
    assert {piece for piece, _ in whisper.weighed} == {0, 1}, "it stands where the two pieces meet"
    assert all("Acme" in texts[-1] or "acting" in texts[-1] for piece, texts in whisper.weighed if not piece)


def test_the_setting_that_is_gone_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checks.toml").write_text('recogniser = { directory = "/srv/base", sha256 = "00" }\n')
    with pytest.raises(RegistrationError, match=rf"no longer a setting.*Take the line out.*{COMMAND}"):
        Checks.load(tmp_path, tmp_path / "marks", tmp_path)


def test_a_model_is_looked_at_without_reading_it(models: Path) -> None:
    model = locked_model(MANY)
    model.look(models)
    with (models / "whisper-base.bin").open("ab") as more:
        more.write(b"x")
    with pytest.raises(ModelFileError, match=COMMAND):
        model.look(models)


# ── with the model itself ────────────────────────────────────────────────────────────────────────────────

NUMBERS = {
    ("en", "en_US_f_Allison"): ("9032", "7415", "2860", "1594"),
    ("es", "es_MX_f_Allison"): ("9032", "6673", "1594", "8027"),
    ("fr", "fr_CA_f_June"): ("7415", "2860", "1594", "8027"),
    ("it", "it_IT_m_Carlo"): ("9032", "7415", "6673", "1594"),
}
"""Numbers whose digits four people say, by language and voice."""


@pytest.fixture(scope="module")
def base() -> Whisper:
    return Whisper.load(MANY, need_model(MANY))


@pytest.mark.long("people's numbers are heard by the larger model")
@pytest.mark.parametrize(("language", "voice"), list(NUMBERS))
def test_digits_that_people_say_are_heard_in_four_languages(base: Whisper, language: str, voice: str) -> None:
    gap = np.zeros(4_000, np.float32)
    folder = need_sounds(voice) / "digits"
    for number in NUMBERS[language, voice]:
        said = [part for digit in number for part in (gap, read(folder / f"{digit}.wav").at_16k)]
        pieces = list(base.pieces(np.concatenate([*said, gap]), language))
        assert [piece.transcript.refused for piece in pieces] == [""]
        assert "".join(tokens(pieces[0].transcript.text, language)) == number
        assert all(0.0 <= certainty <= 1.0 for _, certainty in pieces[0].words)


def test_the_sound_tells_what_was_said_from_what_was_not(base: Whisper) -> None:
    sound = prompt("conf-waitforleader").at_16k
    said = "The conference will begin when the leader arrives."
    others = [said.replace("leader", "manager"), said.replace("will begin", "will not begin"),
              said.replace("conference", "statement")]  # fmt: skip
    right, *wrong = base.log_likelihoods(sound, "en", 0, [said, *others])
    assert -5.0 < right < 0.0
    assert max(wrong) < right - 12.0
    nothing, endless = base.log_likelihoods(sound, "en", 0, ["", "a" * 2000])
    assert nothing == 0.0
    assert np.isfinite(endless)


@pytest.mark.long("a statement is read by a machine, and heard again and again")
async def test_a_statement_is_taken_and_one_with_a_word_or_digit_changed_is_not() -> None:
    """Read by the embedded engine's mouth, a machine: people's statements are heard worse or better."""
    recogniser = HouseRecogniser(need_model(MANY))
    terms = Terms("Thomas Baker", "Blue River", ("support",), ("en",), date(2027, 6, 30))
    wanted = render(terms, LEXICA["en"].words[:4], [9, 0, 3, 2])
    at = next(at for at, part in enumerate(wanted.parts) if "My words" in part.text)
    last = replace(wanted, parts=wanted.parts[at:])
    mouth = Mouth()

    async def heard(text: str, pause_s: float = 0.2) -> HeardText:
        pause = np.zeros(round(pause_s * 16_000), np.float32)
        sounds = [sound async for _, sound in mouth.speak(text)]
        at_16k = [np.asarray(soxr.resample(sound, 24_000, 16_000), np.float32) for sound in sounds]
        return recogniser.transcribe(np.concatenate([part for one in at_16k for part in (one, pause)]), "en")

    whole = match(wanted, await heard(wanted.text))
    assert whole.said, whole.why
    silent = match(last, await heard(last.text, pause_s=15.0))
    assert silent.said, "a long silence is nothing"
    for said, other, missing in (("anchor", "zebra", "anchor"), ("three", "eight", "3")):
        changed = match(last, await heard(last.text.replace(said, other)))
        assert not changed.said
        assert f"{missing!r} is missing" in changed.why
    assert not match(last, await heard(f"{last.text} All of this is just a joke.")).said


def test_a_sample_and_a_minute_of_noise_have_no_words(base: Whisper) -> None:
    recogniser = HouseRecogniser(need_model(MANY))
    assert recogniser.transcribe(np.zeros(1, np.float32), "en").text == ""
    noise = np.random.default_rng(3).normal(0, 0.05, 60 * 16_000).astype(np.float32)
    assert recogniser.transcribe(noise, "en").text == ""
    with pytest.raises(WordsUnknown, match="does not know the language 'xx'"):
        recogniser.transcribe(noise, "xx")
