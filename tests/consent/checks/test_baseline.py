"""The built-in classifier of synthetic speech: what it finds, what it may say, and what it may never say.

These recordings are of kinds that it was trained on, so no error rate is tried here: `benchmarks` measures
those on machines and people left out, and docs/consent.md has them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr

from consent.checks import baseline, traits
from consent.checks.baseline import Baseline
from consent.checks.checklist import Checks, Earlier, Finding, Material
from consent.checks.sound import RATE_HZ, Floats, Recording, of_call
from consent.checks.synthetic import Synthetic, load_classifier
from consent.errors import ModelFileError, RegistrationError
from tests.consent.conftest import Desk, PlannedClassifier, prompt
from tests.needs import need_program

TEXT = (
    "The morning train to the coast was late again, so we talked about the garden. Please bring the blue "
    "folder, two cups of tea, and the letter from my brother. When the storm had passed, the children ran "
    "down to the river to count the ducks. You can choose whichever day suits you, and I will call you back."
)
PEOPLE = ("en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")


@cache
def classifier() -> Baseline:
    return Baseline.load()


@cache
def espeak(voice: str) -> Floats:
    argv = [need_program("espeak-ng"), "-v", voice, "--stdout", TEXT]
    spoken = subprocess.run(argv, capture_output=True, check=True).stdout
    # its WAV header promises 2 GB: it does not know the length when it begins
    rate_hz = int.from_bytes(spoken[24:28], "little")
    sound = np.frombuffer(spoken[44:], "<i2").astype(np.float32) / 32_768
    return np.asarray(soxr.resample(sound, rate_hz, RATE_HZ), np.float32)


@cache
def hibari() -> Floats:
    from model.embedded.mouth import Mouth

    async def speak() -> Floats:
        return np.concatenate([sound async for _, sound in Mouth().speak(TEXT)])

    return asyncio.run(speak())


@cache
def person(voice: str) -> Floats:
    return prompt("demo-congrats", voice).pcm


def over_g711(pcm: Floats) -> Floats:
    narrow = np.clip(soxr.resample(pcm, RATE_HZ, 8_000), -1, 1)
    steps = np.round(np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    heard = np.sign(narrow) * (256**steps - 1) / 255
    return np.asarray(soxr.resample(heard, 8_000, RATE_HZ), np.float32)


def score(pcm: Floats) -> float:
    return float(classifier().scores(pcm)[0].mean())


def machines() -> dict[str, Floats]:
    return {"espeak-ng": espeak("en-us"), "espeak-ng, Klatt": espeak("en-us+klatt"), "hibari": hibari()}


# ── what it hears ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("line", ["as it came", "G.711"])
def test_machines_that_it_met_stand_clear_of_people(line: str) -> None:
    through = over_g711 if line == "G.711" else np.asarray
    spoken = {name: score(through(pcm)) for name, pcm in machines().items()}
    human = {name: score(through(person(name))) for name in PEOPLE}
    assert min(spoken.values()) > max(human.values()) + 1.0, (spoken, human)


def test_a_machine_is_named_one_and_a_person_is_not() -> None:
    for name, pcm in machines().items():
        seen = classifier().examine(pcm)
        assert seen.found is True, name
        assert "like a machine" in seen.detail
    for name in PEOPLE:
        seen = classifier().examine(person(name))
        assert seen.found is False, name
        assert "like a person" in seen.detail


def test_what_it_says_holds_a_score_and_that_it_is_deaf_to_others() -> None:
    detail = classifier().examine(hibari()).detail
    assert f"score {score(hibari()):+.1f}" in detail
    assert "deaf to machines that it never met" in detail


def test_the_reviewer_is_told_where_a_machine_speaks_among_a_persons_words() -> None:
    human = person("ru_RU_f_IvrvoiceRU")[: 20 * RATE_HZ]
    both = np.concatenate((human, espeak("en-us")[: 10 * RATE_HZ], human))
    assert score(both) < score(hibari())  # by itself the mean would be a person's
    seen = classifier().examine(both)
    assert seen.found is True
    assert "like a person, but like a machine from 20 to 30 s" in seen.detail


@pytest.mark.parametrize("factor", [-1.0, 0.05, 0.5])
def test_polarity_and_level_say_nothing(factor: float) -> None:
    pcm = hibari()
    assert score(np.float32(factor) * pcm) == pytest.approx(score(pcm), abs=0.05)


def test_a_constant_voltage_says_nothing() -> None:
    pcm = hibari() * np.float32(0.5)
    assert score(pcm + np.float32(0.1)) == pytest.approx(score(pcm), abs=0.05)


def strange() -> dict[str, Floats]:
    chance = np.random.default_rng(5)
    time_s = np.arange(5 * RATE_HZ) / RATE_HZ
    return {
        "nothing": np.zeros(0, np.float32),
        "one sample": np.ones(1, np.float32),
        "silence": np.zeros(10 * RATE_HZ, np.float32),
        "a second of speech": hibari()[:RATE_HZ],
        "not a number": np.full(5 * RATE_HZ, np.nan, np.float32),
        "infinity": np.full(5 * RATE_HZ, np.inf, np.float32),
        "a tone": np.sin(2 * np.pi * 440 * time_s).astype(np.float32),
        "noise": chance.standard_normal(5 * RATE_HZ).astype(np.float32),
        "clicks": (np.arange(5 * RATE_HZ) % 2_400 == 0).astype(np.float32),
        "a square": np.sign(np.sin(2 * np.pi * 100 * time_s)).astype(np.float32),
        "huge": np.float32(1e30) * hibari()[: 5 * RATE_HZ],
        "tiny": np.float32(1e-30) * hibari()[: 5 * RATE_HZ],
    }


def test_what_is_no_speech_gets_a_finding_and_no_proof() -> None:
    for name, pcm in strange().items():
        seen = classifier().examine(pcm)
        assert seen.found in (True, False, None), name
        assert "nan" not in seen.detail, name
        assert seen.detail, name
    for name in ("nothing", "one sample", "silence", "a second of speech", "not a number", "infinity"):
        assert classifier().examine(strange()[name]).found is None, name


def test_no_part_of_the_longest_recording_is_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []

    def counted(at_8k: Floats) -> dict[str, float] | None:
        heard.append(len(at_8k))
        return traits.traits(at_8k)

    monkeypatch.setattr(baseline, "traits", counted)
    classifier().examine(np.tile(hibari(), 8)[: 120 * RATE_HZ])
    assert sum(heard) == 120 * traits.TRAITS_HZ
    assert max(heard) <= 15 * traits.TRAITS_HZ


# ── what follows from it ─────────────────────────────────────────────────────────────────────────────────


def found_of(checks: Checks, references: list[Recording], statement: Recording, desk: Desk) -> Finding:
    outcome = checks.run(Material(tuple(references), statement, desk.challenge().statement), Earlier())
    return next(finding for finding in outcome.findings if finding.check == "synthetic speech")


@pytest.mark.parametrize("speaker", ["person", "machine"])
def test_neither_verdict_passes_or_refuses_a_registration(desk: Desk, speaker: str) -> None:
    desk.checks.classifier = classifier()
    statement = prompt("basic-pbx-ivr-main") if speaker == "person" else of_call("read", hibari(), 24_000)
    done = desk.submit(statement=statement)
    finding = next(finding for finding in done.findings if finding.check == "synthetic speech")
    assert finding.verdict == "review"
    assert done.state == "pending"


def test_a_machines_statement_is_heard_behind_a_persons_reference(desk: Desk) -> None:
    desk.checks.classifier = classifier()
    finding = found_of(desk.checks, [prompt("demo-congrats")], of_call("read", hibari(), 24_000), desk)
    first, *others = finding.detail.split("; ")
    assert first.startswith("read: it sounds like a machine")
    assert any("demo-congrats" in other for other in others)


def test_a_classifier_that_proves_no_human_hears_every_recording(desk: Desk) -> None:
    heard: list[int] = []

    class Doubtful(PlannedClassifier):
        def examine(self, pcm: Floats) -> Synthetic:
            heard.append(len(pcm))
            return Synthetic(len(heard) == 2, "heard")

    desk.checks.classifier = Doubtful(proves_human=False)
    statement = prompt("basic-pbx-ivr-main")
    assert found_of(desk.checks, [prompt("demo-congrats")], statement, desk).verdict == "refused"
    assert heard == [len(prompt("demo-congrats").pcm), len(statement.pcm)]


def test_a_classifier_that_fails_holds_for_review(desk: Desk) -> None:
    class Broken(PlannedClassifier):
        def examine(self, pcm: Floats) -> Synthetic:
            raise RuntimeError("out of memory")

    class Mute(PlannedClassifier):
        def examine(self, pcm: Floats) -> Synthetic:
            return None  # type: ignore[return-value]  # what it gets wrong

    for made, said in ((Broken(), "out of memory"), (Mute(), "no finding")):
        desk.checks.classifier = made
        finding = found_of(desk.checks, [prompt("demo-congrats")], prompt("basic-pbx-ivr-main"), desk)
        assert finding.verdict == "review"
        assert said in finding.detail


# ── where it comes from ──────────────────────────────────────────────────────────────────────────────────


def test_it_is_in_force_where_no_other_is_named(tmp_path: Path) -> None:
    loaded = Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models").classifier
    assert isinstance(loaded, Baseline)
    assert loaded.proves_human is False
    assert loaded.proves_machine is False
    (tmp_path / "checks.toml").write_text('classifier = "tests.consent.conftest:PlannedClassifier"\n')
    named = Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models").classifier
    assert named is not None
    assert named.name == "planned"


def test_other_weights_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(baseline.PATH.read_bytes())
    content[len(content) // 2] ^= 1
    other = tmp_path / "baseline.json"
    for wrong in (bytes(content), content[:-100], b"", b"{}"):
        other.write_bytes(wrong)
        with pytest.raises(ModelFileError, match="not the file that came with voicegate"):
            Baseline.load(other)
    with pytest.raises(ModelFileError, match="install voicegate again"):
        Baseline.load(tmp_path / "none.json")
    monkeypatch.setattr(Baseline.load.__func__, "__defaults__", (other, baseline.SHA256))
    checks = Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models")
    assert checks.classifier is None
    assert "not the file that came with voicegate" in checks.missing["classifier"]


def test_the_weights_name_their_sources_and_are_small() -> None:
    table = json.loads(baseline.PATH.read_bytes())
    assert baseline.PATH.stat().st_size < 300_000
    assert "benchmarks.synthetic_training" in table["recipe"]
    assert {each["kind"] for each in table["sources"]} == {"machine", "person"}
    assert all(each["origin"] and each["licence"] for each in table["sources"])
    assert set(table["traits"]) == set(traits.traits(traits.at_traits_rate(hibari())[: 10 * 8_000]) or ())


class Nameless:
    """A classifier without a name."""

    proves_human = True

    def examine(self, pcm: Floats) -> Synthetic:
        return Synthetic(False, "")


class Undecided(Nameless):
    """A classifier that does not say what it proves."""

    name = "undecided"
    proves_human = "perhaps"  # type: ignore[assignment]  # what it gets wrong


def exploding() -> None:
    """A factory that fails in a way of its own."""
    raise OSError("no such weights")


@pytest.mark.parametrize(
    ("factory", "said"),
    [("Nameless", "has no name"), ("Undecided", "proves_human"), ("exploding", "no such weights")],
)
def test_a_classifier_that_is_not_whole_is_not_loaded(factory: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_classifier(f"tests.consent.checks.test_baseline:{factory}")


def test_a_classifiers_name_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "checks.toml").write_text("classifier = 1\n")
    with pytest.raises(RegistrationError, match="classifier is a text"):
        Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models")
