"""What of a caller's words may be kept: everything but the numbers of cards and accounts.

A number is not kept when

* it is a card's: 13 to 19 digits that pass Luhn's check, however they are grouped, whatever is said between
  them, over up to `SPAN` turns;
* it has 13 digits or more in one run, and is neither a telephone number with its country, nor several
  telephone numbers, nor a list: a recogniser that mishears one digit makes a card fail the check;
* it is an IBAN;
* the words beside it, or the question before it, say that it is an account's (5 digits or more) or a secret
  such as a card's security code (3 or more).

Where a card was found, what is said in the same breath (its expiry, its security code) goes as well.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from model.redaction.account_numbers import is_iban, lengths_issued
from model.redaction.number_runs import LINKS, NumberRun, number_runs
from model.redaction.number_subjects import SECRETS, asked_subject, is_hidden
from model.redaction.spoken_digits import Piece, folded, read_digits

SPAN: Final = 4
"""Turns over which one number may be said."""
TOLD: Final = 4
"""Digits of a card that may be kept: enough to tell one from another."""
GAP: Final = 25
"""Words that may stand between two digits of one card."""
BESIDE: Final = 8
"""Digits that may follow a card's in the same breath: its expiry and its security code."""
CARD: Final = "[card number]"
ACCOUNT: Final = "[account number]"
CODE: Final = "[code]"
NUMBER: Final = "[number]"
_WORD: Final = re.compile(r"[^\W_]+")
_LONGEST: Final = 19


@dataclass(eq=False, slots=True)
class Passage:
    """What was said in one turn. It is settled once no later turn can change what is kept of it."""

    text: str = field(repr=False)
    runs: list[NumberRun] = field(repr=False)
    words: list[Piece] = field(repr=False)
    _masks: list[tuple[int, int, str]] = field(default_factory=list)
    _unfinished: list[NumberRun] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether what is kept of it stays as it is; a "one" or two between other words is nobody's card."""
        kept = [run for run in self.runs if not self.hides(run)]
        return all(run.is_aside for run in kept) and len(kept) <= 2

    @property
    def kept(self) -> str:
        """The text without the numbers that are known by now not to be kept."""
        return self._without(self._masks)

    def hide(self, start: int, end: int, label: str) -> None:
        """Does not keep this part."""
        self._masks.append((start, end, label))

    def leave_unfinished(self, run: NumberRun) -> None:
        """This run, which is not kept since it is too long for anything else, may go on in the next turn."""
        self._unfinished.append(run)

    def finish(self, run: NumberRun) -> None:
        """All of the number that the run is part of was found."""
        if run in self._unfinished:
            self._unfinished.remove(run)

    def hides(self, run: NumberRun) -> bool:
        """Whether the run is not kept."""
        return any(start <= run.start and run.end <= end for start, end, _ in self._masks)

    def may_go_on(self, run: NumberRun) -> bool:
        """Whether the run may be part of a number that was not found yet."""
        return run in self._unfinished or not self.hides(run)

    @property
    def doubtful(self) -> list[NumberRun]:
        """Numbers that are kept so far, and may be found to be part of one that is not."""
        return [run for run in self.runs if not run.measured and not self.hides(run)]

    @property
    def without_doubtful(self) -> str:
        """The text without these either."""
        return self._without([*self._masks, *((run.start, run.end, NUMBER) for run in self.doubtful)])

    def settle(self) -> None:
        """No later turn belongs to it. What is not kept is forgotten here, too."""
        self.text, self._masks, self.runs, self.words, self._unfinished = self.kept, [], [], [], []

    def _without(self, masks: Iterable[tuple[int, int, str]]) -> str:
        said: list[str] = []
        at, last = 0, ""
        for start, end, label in sorted(masks):
            if end <= at:
                continue
            between = self.text[at : max(at, start)]
            if label != last or _WORD.search(between):
                said += [between, label]
            at, last = end, label
        return "".join(said) + self.text[at:]


class Redactor:
    """One call's words, turn by turn. `language` is that of the words (ISO 639-1)."""

    def __init__(self, language: str = "en") -> None:
        self._language = language
        self._turns: deque[Passage] = deque()
        """the caller's last ones, the oldest first"""
        self._found: set[str] = set()
        """digits that are not kept"""
        self._card_named = False

    def change_language(self, language: str) -> None:
        """What is said from now on is in this one."""
        self._language = language

    def hear(self, text: str, *, asked: str = "") -> Passage:
        """A turn of the caller's. `asked`: what the caller was asked before it."""
        passage = self._read(text)
        self._turns.append(passage)
        self._hide_cards(self._turns)
        self._hide_alone(passage, asked)
        if len(self._turns) == SPAN:
            self._turns.popleft().settle()
        return passage

    def say(self, text: str) -> str:
        """What may be kept of what the caller was told: a machine may say again what it was told. Numbers of
        its own (whom to pay, whom to call) stay."""
        passage = self._read(text)
        self._hide_cards([passage])
        for run in passage.doubtful:
            again = any(
                run.digits in found or found in run.digits for found in self._found if len(found) > TOLD
            )
            if again and len(run.digits) > TOLD:
                passage.hide(run.start, run.end, NUMBER)
        return passage.kept

    def kept_by_now(self, passage: Passage) -> str:
        """What may be kept of it where nothing is taken back later: no number that may yet be a card's."""
        digits = sum(len(run.digits) for turn in self._turns for run in turn.doubtful)
        return passage.without_doubtful if digits > TOLD else passage.kept

    def finish(self) -> None:
        """The caller says nothing more."""
        while self._turns:
            self._turns.popleft().settle()

    def _read(self, text: str) -> Passage:
        pieces = read_digits(text, self._language)
        return Passage(text, number_runs(text, pieces), pieces)

    def _hide(self, passage: Passage, run: NumberRun, label: str) -> None:
        passage.hide(run.start, run.end, label)
        self._found.add(run.digits)
        self._card_named |= label == CARD

    # ── one turn by itself ───────────────────────────────────────────────────────────────────────────

    def _hide_alone(self, passage: Passage, asked: str) -> None:
        question = asked_subject([folded(word) for word in _WORD.findall(asked)])
        for run in passage.doubtful:
            if run.is_too_long:
                self._hide(passage, run, CARD if run.holds_card else NUMBER)
                passage.leave_unfinished(run)
        for run in passage.doubtful:
            subject = run.subject or question
            if is_hidden(subject, len(run.digits), card_named=self._card_named):
                self._hide(passage, run, CODE if subject in SECRETS else ACCOUNT)
        for start, end in ibans(passage.text, passage.words):
            passage.hide(start, end, ACCOUNT)
            own = [run.digits for run in passage.runs if start <= run.start and run.end <= end]
            self._found.update((*own, "".join(own)))

    # ── cards, whatever stands between their digits ──────────────────────────────────────────────────

    def _hide_cards(self, passages: Iterable[Passage]) -> None:
        chain = [
            Link(passage, run, place, piece)
            for passage in passages
            for run in passage.runs
            if passage.may_go_on(run)
            for place, piece in enumerate(run.pieces)
        ]
        for first, link in enumerate(chain):
            if link.begins and (card := next(card_from(chain, first), None)) is not None:
                for one in card:
                    self._hide(one.passage, one.run, CARD)
                    one.passage.finish(one.run)
                self._found.add("".join(one.piece.digits for one in card))
                self._hide_cards(passages)
                return


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A piece of a run, among those of all turns that are looked at."""

    passage: Passage
    run: NumberRun
    place: int
    """of `piece` among its run's"""
    piece: Piece

    @property
    def begins(self) -> bool:
        """A card may begin here: nothing that must be digits stands before it in its run."""
        return all(not piece.sure for piece in self.run.pieces[: self.place])

    @property
    def may_be_none(self) -> bool:
        """It may be no digit of the number around it: "that one", "20 minutes", "the next four"."""
        return not self.piece.sure or self.run.measured or len(self.run.digits) <= 2

    @property
    def left(self) -> int:
        """Digits that follow it in its run."""
        return sum(len(piece.digits) for piece in self.run.pieces[self.place + 1 :])


@dataclass(frozen=True, slots=True)
class Partial:
    """The digits of a chain that were taken so far. The sums are Luhn's, for an even and an odd length."""

    taken: tuple[int, ...]
    length: int
    beginning: str
    even: int
    odd: int

    def with_digits(self, at: int, digits: str) -> Partial:
        even, odd = self.even, self.odd
        for place, sign in enumerate(digits, self.length):
            value = int(sign)
            doubled = 2 * value - 9 * (value > 4)
            even += doubled if place % 2 == 0 else value
            odd += doubled if place % 2 else value
        length = self.length + len(digits)
        return Partial((*self.taken, at), length, (self.beginning + digits)[:4], even % 10, odd % 10)

    @property
    def is_card(self) -> bool:
        """Whether these are all digits of a card that somebody issues."""
        if self.length < 13 or self.length not in lengths_issued(self.beginning):
            return False
        return (self.odd if self.length % 2 else self.even) == 0


def card_from(chain: Sequence[Link], first: int) -> Iterator[list[Link]]:
    """The cards that begin with a link: all that follow it, or all but those that may be no digits. Of those
    that end together the one of most digits comes first, so that none of a card's is left."""
    states = {(0, "", 0, 0): Partial((), 0, "", 0, 0)}
    for at in range(first, len(chain)):
        link = chain[at]
        after: dict[tuple[int, str, int, int], Partial] = {}
        cards: list[Partial] = []
        for partial in states.values():
            if at > first and link.may_be_none:
                after.setdefault((partial.length, partial.beginning, partial.even, partial.odd), partial)
            taken = partial.with_digits(at, link.piece.digits)
            if taken.length > _LONGEST:
                continue
            if taken.is_card and _ends(chain, taken.taken):
                cards.append(taken)
            after.setdefault((taken.length, taken.beginning, taken.even, taken.odd), taken)
        for card in sorted(cards, key=lambda one: one.length, reverse=True):
            yield [chain[one] for one in card.taken]
        states = after
        if not states or (at + 1 < len(chain) and _words_between(link, chain[at + 1]) > GAP):
            return


def _words_between(link: Link, following: Link) -> int:
    if link.passage is not following.passage:
        return 0
    return len(_WORD.findall(link.passage.text[link.piece.end : following.piece.start]))


def _ends(chain: Sequence[Link], taken: Sequence[int]) -> bool:
    """Whether a card may end where it does; over several turns: it is more than a number said twice."""
    last = chain[taken[-1]]
    if last.left > BESIDE:
        return False
    runs = dict.fromkeys((chain[at].passage, chain[at].run) for at in taken)
    turns = {passage for passage, _ in runs}
    return len(turns) == 1 or len({run.digits for _, run in runs}) > 1 or last.left == 0


def ibans(text: str, words: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Where IBANs stand in a text, written or spelled: "DE89 3704 ...", "D E eight nine three seven ..."."""
    spelled: list[tuple[str, Piece]] = []
    for piece in [*words, Piece(0, 0, "")]:
        raw = text[piece.start : piece.end]
        letters = raw.upper() if raw.isascii() and raw.isalpha() and (len(raw) == 1 or raw.isupper()) else ""
        signs = piece.digits or letters
        if signs:
            spelled.append((signs, piece))
        if signs or piece.word in LINKS:
            continue
        yield from _ibans_in(spelled)
        spelled = []


def _ibans_in(spelled: Sequence[tuple[str, Piece]]) -> Iterator[tuple[int, int]]:
    first = 0
    while first < len(spelled):
        signs, end = "", 0
        for after in range(first, len(spelled)):
            signs += spelled[after][0]
            if is_iban(signs):
                end = after + 1
                yield spelled[first][1].start, spelled[after][1].end
                break
        first = end or first + 1


def redacted(text: str, language: str = "en") -> str:
    """What may be kept of one text by itself."""
    return Redactor(language).hear(text).kept


def redacted_turns(texts: Iterable[str], language: str = "en") -> list[str]:
    """What may be kept of a caller's turns, the oldest first, however a number was spread over them."""
    redactor = Redactor(language)
    passages = [redactor.hear(text) for text in texts]
    return [passage.kept for passage in passages]
