"""The checks of a registration, each with a verdict and how much it proves.

`refused` is certain enough to refuse by itself; `review` is for a human ear; `passed` stands. Whatever they
find short of a refusal, a second operator decides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from consent.checks.baseline import Baseline
from consent.checks.fingerprint import Bits, find_copy, fingerprint
from consent.checks.sound import Floats, Recording, measure
from consent.checks.speaker import GE2E, WEIGHTS, SpeakerModel, SpeakerUnavailable, similarity, voiceprint
from consent.checks.synthetic import OwnMark, SyntheticCheck, examined, load_classifier
from consent.checks.words import HouseRecogniser, Recogniser, WordsUnknown
from consent.errors import ModelFileError, RegistrationError
from consent.models.model_files import locked_model
from consent.statements.comparison import match
from consent.statements.statement import Statement
from consent.whisper.whisper import MANY

Verdict = Literal["passed", "review", "refused"]

CHECKS_FILE: Final = "checks.toml"

SPEECH_S: Final = (3.0, 30.0)
"""Speech in all references together, and the least in a statement. With its pauses a clip is at most twice as
long: an engine hears no more."""
STATEMENT_S: Final = 90.0
SNR_DB: Final = (12.0, 20.0)
"""Below the first: refused; below the second: a human listens."""
CLIPPED: Final = (0.01, 0.001)
BANDWIDTH_HZ: Final = 3_000.0
SPEECH_SHARE: Final = 0.35
"""Less speech than this in a recording is odd: music, long silence."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. `proves` says how strong it is, for the record and whoever reads it."""

    check: str
    verdict: Verdict
    detail: str
    proves: str

    def to_json(self) -> dict[str, str]:
        """What a record says of it."""
        return {
            "check": self.check,
            "verdict": self.verdict,
            "detail": self.detail,
            "proves": self.proves,
        }


@dataclass(frozen=True)
class Material:
    """What is checked: the references with the texts spoken in them, and the statement as read aloud."""

    references: tuple[Recording, ...]
    statement: Recording
    wanted: Statement


@dataclass
class Earlier:
    """What the house remembers: fingerprints handed in before, voiceprints of blocked speakers."""

    fingerprints: list[Bits] = field(default_factory=list)
    hashes: frozenset[str] = frozenset()
    blocked: dict[str, Floats] = field(default_factory=dict)


@dataclass
class Checks:
    """The instruments in force. None: there is none here, and a human does its part."""

    speaker: SpeakerModel | None = None
    recogniser: Recogniser | None = None
    own_mark: SyntheticCheck | None = None
    classifier: SyntheticCheck | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """why an instrument is None, by its name"""

    @classmethod
    def load(cls, directory: Path, mark_keys: Path, models: Path) -> Checks:
        """The instruments that `checks.toml` in `directory` names, and those of this installation.

        `mark_keys` is the watermark's key ring, `models` the directory of model files. Raises
        `RegistrationError`.
        """
        checks = cls(own_mark=OwnMark(mark_keys))
        table = _read(directory / CHECKS_FILE)
        try:
            checks.speaker = GE2E.load(models)
        except SpeakerUnavailable as error:
            checks.missing["speaker"] = str(error)
        try:
            checks.recogniser = HouseRecogniser(models)
        except WordsUnknown as error:
            checks.missing["recogniser"] = str(error)
        factory = table.get("classifier")
        if factory is None:
            try:
                checks.classifier = Baseline.load()
            except ModelFileError as error:
                checks.missing["classifier"] = str(error)
        else:
            try:
                checks.classifier = load_classifier(factory)
            except ValueError as error:
                raise RegistrationError("checks", str(error)) from None
        return checks

    @staticmethod
    def lacking(models: Path) -> Iterator[str]:
        """What is not there of the model files that checks use, and how to fetch it. Reads none of them."""
        for name in (WEIGHTS.name, MANY):
            try:
                locked_model(name).look(models)
            except ModelFileError as error:
                yield str(error)

    def run(
        self, material: Material, earlier: Earlier, told: Callable[[Finding], None] = lambda _: None
    ) -> Outcome:
        """All checks in order; stops at the first that refuses. `told` hears of each as it is done."""
        outcome = Outcome()
        for finding in self._findings(material, earlier, outcome):
            outcome.findings.append(finding)
            told(finding)
            if finding.verdict == "refused":
                break
        return outcome

    COUNT: Final = 9
    """How many findings a registration has when nothing refuses it."""

    def _findings(self, material: Material, earlier: Earlier, outcome: Outcome) -> Iterator[Finding]:
        yield _quality("reference sound", material.references, SPEECH_S)
        yield _quality("statement sound", (material.statement,), (SPEECH_S[0], STATEMENT_S))
        yield self._marks(material)
        yield _copies(material, earlier, outcome)
        yield self._classified(material)
        yield self._one_speaker(material, outcome)
        yield self._same_speaker(outcome)
        yield self._blocked(earlier, outcome)
        yield self._words(material)

    # ── one after another ────────────────────────────────────────────────────────────────────────────

    def _marks(self, material: Material) -> Finding:
        proves = "a mark proves that this gateway made the sound; no mark proves nothing"
        if self.own_mark is None:
            return Finding("own watermark", "review", "not looked for", proves)
        for recording in (*material.references, material.statement):
            seen = self.own_mark.examine(recording.pcm)
            if seen.found:
                return Finding("own watermark", "refused", f"{recording.name}: {seen.detail}", proves)
            if seen.found is None:
                return Finding("own watermark", "review", f"{recording.name}: {seen.detail}", proves)
        return Finding("own watermark", "passed", "no mark of this gateway", proves)

    def _classified(self, material: Material) -> Finding:
        check = "synthetic speech"
        proves = "a classifier is evidence; it does not know every synthesizer"
        if self.classifier is None:
            why = self.missing.get("classifier", "no classifier")
            return Finding(check, "review", f"{why}: listen for a machine", proves)
        machines: list[str] = []
        held: list[str] = []
        for recording in (*material.references, material.statement):
            seen = examined(self.classifier, recording.pcm)
            detail = f"{recording.name}: {seen.detail}"
            if seen.found and getattr(self.classifier, "proves_machine", True):
                return Finding(check, "refused", detail, proves)
            if seen.found:
                machines.append(detail)
            elif seen.found is None or not self.classifier.proves_human:
                held.append(detail)
        if machines or held:  # what sounds like a machine stands first
            return Finding(check, "review", "; ".join((*machines, *held)), proves)
        return Finding(check, "passed", f"{self.classifier.name} found none", proves)

    def _one_speaker(self, material: Material, outcome: Outcome) -> Finding:
        check, proves = "one speaker", "finds turns of seconds by unlike voices; not a word dropped in"
        if self.speaker is None:
            why = self.missing.get("speaker", "no speaker model")
            return Finding(check, "review", f"{why}: listen for a second voice", proves)
        worst = 1.0
        for recording in (material.statement, *material.references):
            windows = self.speaker.windows(recording.speech_16k)
            outcome.voiceprints.append(voiceprint(windows))
            alike = halves_alike(windows)
            worst = min(worst, alike)
            if alike < TWO_SPEAKERS[0]:
                detail = f"{recording.name}: two voices (likeness {alike:.2f})"
                return Finding(check, "refused", detail, proves)
        verdict: Verdict = "passed" if worst >= TWO_SPEAKERS[1] else "review"
        return Finding(check, verdict, f"likeness within each recording {worst:.2f} or more", proves)

    def _same_speaker(self, outcome: Outcome) -> Finding:
        check, proves = (
            "same speaker",
            "likeness of voices; not proof against an imitator or a synthetic copy",
        )
        if self.speaker is None:
            why = self.missing.get("speaker", "no speaker model")
            return Finding(check, "review", f"{why}: listen whether statement and references are one", proves)
        spoken, *prints = outcome.voiceprints
        least = min(similarity(spoken, one) for one in prints)
        detail = f"likeness {least:.2f} ({self.speaker.name})"
        if least < self.speaker.other:
            return Finding(check, "refused", f"{detail}: another person's statement", proves)
        return Finding(check, "passed" if least >= self.speaker.same else "review", detail, proves)

    def _blocked(self, earlier: Earlier, outcome: Outcome) -> Finding:
        check, proves = "blocked speakers", "likeness of voices to those on the list, and only those"
        if not earlier.blocked:
            return Finding(check, "passed", "nobody is on the list", proves)
        if self.speaker is None:
            return Finding(check, "review", f"{len(earlier.blocked)} on the list: compare by ear", proves)
        label, most = "", -1.0
        for name, blocked in earlier.blocked.items():
            for mine in outcome.voiceprints:
                if (likeness := similarity(blocked, mine)) > most:
                    label, most = name, likeness
        if most >= self.speaker.same:
            return Finding(check, "refused", f"like {label}, who is blocked ({most:.2f})", proves)
        verdict: Verdict = "review" if most >= self.speaker.other else "passed"
        return Finding(check, verdict, f"nearest: {label} ({most:.2f})", proves)

    def _words(self, material: Material) -> Finding:
        check = "statement words"
        proves = "names, consent, limits, random words and digits heard exactly by a recogniser"
        if self.recogniser is None:
            why = self.missing.get("recogniser", "no recogniser")
            return Finding(check, "review", f"{why}: listen and compare each word", proves)
        sound, language = material.statement.at_16k, material.wanted.language
        try:
            heard = self.recogniser.transcribe(sound, language)
            found = match(material.wanted, heard, partial(self.recogniser.log_likelihoods, sound, language))
        except WordsUnknown as error:
            return Finding(check, "review", f"{error}: listen and compare each word", proves)
        if not found.said:
            return Finding(check, "refused", f"{found.why}; read it again", proves)
        if found.doubt:
            return Finding(check, "review", f"listen for {found.doubt} ({self.recogniser.name})", proves)
        return Finding(
            check, "passed", f"all heard ({self.recogniser.name}); {found.slips:.0%} slips", proves
        )


@dataclass
class Outcome:
    """What the checks found, and what they made on the way."""

    findings: list[Finding] = field(default_factory=list)
    voiceprints: list[Floats] = field(default_factory=list)
    """of the statement, then of each reference; empty without a speaker model"""
    fingerprints: list[Bits] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        verdicts = {finding.verdict for finding in self.findings}
        return "refused" if "refused" in verdicts else "review" if "review" in verdicts else "passed"

    @property
    def refusal(self) -> Finding | None:
        """The first finding that refuses, if there is one."""
        return next((finding for finding in self.findings if finding.verdict == "refused"), None)


TWO_SPEAKERS: Final = (0.66, 0.82)
"""Likeness of the two halves that a recording's windows fall into: below the first two people, below the
second a human listens. Measured by `benchmarks/consent_speakers.py`: one voice .84 to .97, two .57 to .77."""


def halves_alike(windows: Floats) -> float:
    """The likeness of the two groups of windows `(n, 256)` that differ most, by two means.

    It compares the groups' centres; 1.0 when there are fewer than six windows.
    """
    if len(windows) < 6:
        return 1.0
    likeness = windows @ windows.T
    first, second = np.unravel_index(int(likeness.argmin()), likeness.shape)
    centres = windows[[first, second]]
    for _ in range(10):
        belongs = (windows @ centres.T).argmax(axis=1)
        if belongs.min() == belongs.max():
            return 1.0
        sums = np.stack([windows[belongs == side].sum(axis=0) for side in (0, 1)])
        centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    smaller = min(int((belongs == side).sum()) for side in (0, 1))
    return 1.0 if smaller < 2 else float(centres[0] @ centres[1])


def _quality(check: str, recordings: Sequence[Recording], limits_s: tuple[float, float]) -> Finding:
    proves = "measured: length, noise, clipping, bandwidth"
    verdict: Verdict = "passed"
    notes: list[str] = []
    speech_s = 0.0
    for recording in recordings:
        quality = measure(recording)
        speech_s += quality.speech_s
        if quality.speech_s < 1.0:
            return Finding(check, "refused", f"{recording.name}: no speech in it", proves)
        if quality.snr_db < SNR_DB[0]:
            return Finding(check, "refused", f"{recording.name}: too noisy ({quality.snr_db:.0f} dB)", proves)
        if quality.clipped > CLIPPED[0]:
            return Finding(check, "refused", f"{recording.name}: {quality.clipped:.1%} is clipped", proves)
        if quality.bandwidth_hz < BANDWIDTH_HZ:
            return Finding(
                check, "refused", f"{recording.name}: nothing above {quality.bandwidth_hz:.0f} Hz", proves
            )
        if quality.speech_s / quality.seconds < SPEECH_SHARE:
            verdict = "review"
            notes.append(f"{recording.name}: only {quality.speech_s / quality.seconds:.0%} is speech")
        if quality.snr_db < SNR_DB[1] or quality.clipped > CLIPPED[1]:
            verdict = "review"
        band = "telephone band" if quality.bandwidth_hz < 4_500 else f"{quality.bandwidth_hz / 1000:.1f} kHz"
        notes.append(f"{quality.speech_s:.1f} s of speech, {quality.snr_db:.0f} dB, {band}")
    low, high = limits_s
    if not low <= speech_s <= high:
        return Finding(
            check, "refused", f"{speech_s:.1f} s of speech; {low:.0f} to {high:.0f} s are taken", proves
        )
    whole_s, most_s = sum(recording.seconds for recording in recordings), 2 * high
    if whole_s > most_s:
        return Finding(
            check, "refused", f"{whole_s:.1f} s of sound; at most {most_s:.0f} s are taken", proves
        )
    return Finding(check, verdict, "; ".join(notes), proves)


def _copies(material: Material, earlier: Earlier, outcome: Outcome) -> Finding:
    check = "copies"
    proves = "finds the same sound again through codecs, levels and noise; not a new take"
    statement = fingerprint(material.statement)
    references = [fingerprint(reference) for reference in material.references]
    outcome.fingerprints = [statement, *references]
    for recording, bits in zip((material.statement, *material.references), outcome.fingerprints, strict=True):
        if recording.sha256 in earlier.hashes:
            return Finding(check, "refused", f"{recording.name} was handed in before", proves)
        for old in earlier.fingerprints:
            if (copy := find_copy(bits, old)) is not None:
                where = f"{recording.name} at {copy.at_s:.1f} s"
                return Finding(check, "refused", f"{where} is a recording handed in before", proves)
    for reference, bits in zip(material.references, references, strict=True):
        if (copy := find_copy(statement, bits)) is not None:
            where = f"the statement at {copy.at_s:.1f} s is {reference.name} at {copy.other_at_s:.1f} s"
            return Finding(check, "refused", f"{where}: cut together", proves)
    return Finding(check, "passed", f"compared with {len(earlier.fingerprints)} earlier recordings", proves)


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RegistrationError("checks", f"{path}: {error}") from None
    if "recogniser" in table:
        raise RegistrationError(
            "checks",
            f"{path}: recogniser is no longer a setting: statements are heard by the model file {MANY}. Take "
            f"the line out, and fetch the file with: voicegate models get {MANY}",
        )
    for key in table:
        if key != "classifier":
            raise RegistrationError("checks", f"{path}: {key!r} is not a setting; there is classifier")
    if not isinstance(table.get("classifier", ""), str):
        raise RegistrationError("checks", f'{path}: classifier is a text, "package.module:function"')
    return table
