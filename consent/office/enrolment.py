"""Enrolment by telephone.

The caller repeats the challenge line by line, then a few sentences, and what was recorded becomes a pending
registration. This is for the dialplan verb `enroll`. The gateway says `line.say`, records the answer, gives
it to `heard`; when that answers with words, it says them and asks again; at the end `finish`. Nothing is kept
before `finish`: a call that ends earlier leaves only an unused challenge, which expires. Blocking: use
`asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from consent.checks.sound import RATE_HZ, Floats, Recording, measure, of_call
from consent.errors import ChallengeError, ClockError, RegistrationError
from consent.ledger.standing import WRONG_CODES
from consent.ledger.writing import Writing
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.registration import Registered
from consent.office.submission import Submission
from consent.statements import challenge as challenges
from consent.statements.challenge import Challenge
from consent.statements.lexicon import LEXICA

LONGEST_WORDS: Final = 14
"""Words of one line: what a person can repeat after hearing it once."""
PAUSE_S: Final = 0.25
LINE_SPEECH_S: Final = 0.4
LINE_SNR_DB: Final = 10.0
CODES_WITHIN_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """Something to repeat. `kind` says what it becomes."""

    kind: Literal["statement", "reference"]
    say: str


def by_code(office: ConsentOffice, code: str) -> Enrolment:
    """The enrolment of a challenge that an operator issued for the telephone.

    `code` is the ten digits that the caller dials. Raises `ChallengeError`, the same for every code that
    opens nothing. Wrong codes are rows of the ledger, so that no table can be emptied of them; after
    `WRONG_CODES` within an hour, from all callers together, no code opens anything until the hour is over.
    """
    challenge = None
    with contextlib.suppress(ClockError), office.books.writing() as writing:
        now = writing.now()
        tried = [at_ms for at_ms in writing.standing.wrong_codes_ms if at_ms / 1000 > now - CODES_WITHIN_S]
        challenge = _open(writing, office, code, now) if len(tried) < WRONG_CODES else None
        if challenge is None and len(tried) < WRONG_CODES:
            writing.append("code.wrong", None, {})
    if challenge is None:
        raise ChallengeError("this code is not valid now")
    return Enrolment(office, challenge)


def _open(writing: Writing, office: ConsentOffice, code: str, now: float) -> Challenge | None:
    try:
        challenge = challenges.read(writing.connection, office.verifier, code, now)
    except ChallengeError:
        return None
    spent = any(voice.challenge == challenge.challenge_id for voice in writing.standing.voices.values())
    return challenge if challenge.by_phone and not spent else None


@dataclass
class Enrolment:
    """One call's enrolment. Its lines are said in the challenge's language."""

    office: ConsentOffice
    challenge: Challenge
    _takes: dict[int, tuple[Floats, int]] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """The language that the statement is read in."""
        return self.challenge.statement.language

    @property
    def lines(self) -> tuple[Line, ...]:
        """Everything to repeat, in order: the statement in pieces, then the reference sentences."""
        statement = [Line("statement", piece) for piece in _pieces(self.challenge.statement.text)]
        return (*statement, *(Line("reference", sentence) for sentence in LEXICA[self.language].sentences))

    def heard(self, at: int, pcm: Floats, source_hz: int) -> str | None:
        """Takes the answer to line `at` (float32 24 kHz; `source_hz` the line's rate).

        None when it will do; else why not, in words for the caller, and the take is dropped.
        """
        again = LEXICA[self.language].again
        try:
            quality = measure(of_call(f"line {at + 1}", pcm, source_hz))
        except RegistrationError:
            return again["long"]
        if quality.speech_s < LINE_SPEECH_S:
            return again["unheard"]
        if quality.snr_db < LINE_SNR_DB:
            return again["noisy"]
        if quality.clipped > 0.02:
            return again["loud"]
        self._takes[at] = (pcm, source_hz)
        return None

    @property
    def missing(self) -> tuple[int, ...]:
        """Lines that were not taken yet."""
        return tuple(at for at in range(len(self.lines)) if at not in self._takes)

    def finish(self, handle: str, pin: str | None = None) -> Registered:
        """Hands everything in; always pending, for two operators to hear.

        Raises as `Registrar.submit` does.
        """
        if self.missing:
            raise RegistrationError("statement", f"line {self.missing[0] + 1} was not recorded")
        statement = [at for at, line in enumerate(self.lines) if line.kind == "statement"]
        references = [at for at, line in enumerate(self.lines) if line.kind == "reference"]
        text = " ".join(self.lines[at].say for at in references)
        submission = Submission(
            handle=handle,
            references=(Reference(self._join("reference", references), text),),
            statement=self._join("statement", statement),
            challenge_id=self.challenge.challenge_id,
            adult=True,  # said in the statement itself, and for the reviewers to judge
            pin=pin,
        )
        return self.office.registrar.submit(submission, None)

    def _join(self, name: str, lines: Sequence[int]) -> Recording:
        pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
        pieces = [piece for at in lines for piece in (self._takes[at][0], pause)]
        return of_call(name, np.concatenate(pieces), min(self._takes[at][1] for at in lines))


def _pieces(text: str) -> list[str]:
    """A statement in pieces of at most `LONGEST_WORDS` words, cut at sentences, commas, then anywhere.

    The dot of an ordinal ("30. Juni") ends no sentence.
    """
    pieces: list[str] = []
    for sentence in re.split(r"(?<=[.!?])(?<!\b\d\.)(?<!\b\d\d\.)\s+(?=\w)", text):
        clauses = re.split(r"(?<=,)\s+", sentence)
        piece: list[str] = []
        for clause in clauses:
            words = clause.split()
            if piece and len(piece) + len(words) > LONGEST_WORDS:
                pieces.append(" ".join(piece))
                piece = []
            while len(words) > LONGEST_WORDS:
                pieces.append(" ".join(words[:LONGEST_WORDS]))
                words = words[LONGEST_WORDS:]
            piece += words
        if piece:
            pieces.append(" ".join(piece))
    return pieces
