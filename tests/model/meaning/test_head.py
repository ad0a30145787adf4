"""Heads: what a sentence asks for, near misses, and what a plan's own examples do."""

from __future__ import annotations

import pytest

from model.meaning.embedder import Embedder
from model.meaning.head import CLEAR, NEAR, POSSIBLE, SURE, SURE_DOUBTED, UNHEARD, Judgement, plain
from model.meaning.heads import Examples, Heads
from model.meaning.intents import library
from model.meaning.points import read_points
from tests.needs import MODELS

PLAN = [
    Examples("hours", ("when are you open",), "hours"),
    Examples("person", ("a person please",), "person"),
    Examples("time", ("what time is it",), "time"),
    Examples("goodbye", ("goodbye",), "goodbye"),
]
BIKES = Examples(
    "tandems",
    (
        "do you rent out tandems", "can i hire a tandem", "i want to borrow a tandem for the weekend",
        "is there a bicycle made for two that we can have", "have you got a tandem free on sunday",
        "we need a bike for two people", "how do we book a tandem", "tandem rental please",
        "could my wife and i take a tandem out", "a tandem for saturday please",
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "intent"),
    [
        ("Until what time are you open on Saturday?", "hours"),
        ("Could I talk to a real human being?", "person"),
        ("Um, do you know what time it is right now?", "time"),
        ("Well, that's everything, thanks, bye!", "goodbye"),
    ],
)
def test_a_sentence_that_no_plan_lists_is_understood(heads: Heads, said: str, intent: str) -> None:
    judged = heads.head(PLAN).judge(said)
    assert (judged.intent, judged.sure, judged.rival) == (intent, True, None)
    assert judged.confidence >= SURE


@pytest.mark.parametrize(
    "said",
    [
        "when does the museum open",
        "goodbye stranger is a great song",
        "my grandmother bakes apple cakes",
        "price list please",
    ],
)
def test_what_the_plan_does_not_know_is_not_taken(heads: Heads, said: str) -> None:
    assert not heads.head(PLAN).judge(said).sure


def test_an_announcement_is_not_taken_for_a_wish(heads: Heads) -> None:
    assert not heads.head(PLAN).judge("our telephone lines are open on weekdays until seven").sure


@pytest.mark.parametrize(
    "said",
    [
        "our agents are helping other customers",
        "we value your custom an operator will answer soon",
    ],
)
def test_an_announcement_is_not_asked_about(heads: Heads, said: str) -> None:
    assert heads.head(PLAN).judge(said).intent is None


@pytest.mark.parametrize("said", ["", "  ", "...", "?!"])
def test_nothing_asks_for_nothing(heads: Heads, said: str) -> None:
    assert heads.head(PLAN).judge(said) == UNHEARD


def test_a_plans_own_examples_are_enough(heads: Heads) -> None:
    head = heads.head([*PLAN, BIKES])
    judged = head.judge("Is it possible to hire one of those tandem bikes from you?")
    assert (judged.intent, judged.sure) == ("tandems", True)
    assert head.judge("are you open on sundays").intent == "hours"


def test_what_a_plan_says_itself_is_not_evidence_against_it(heads: Heads) -> None:
    """A museum's plan: the library has its question among what nobody should take."""
    museum = Examples(
        "museum", ("when does the museum open", "is the museum open today", "the museum's hours")
    )
    assert heads.head([museum]).judge("when does the museum open").intent == "museum"


def test_a_plan_may_mean_an_intent_of_the_library_by_its_own_examples(heads: Heads) -> None:
    price = Examples("costs", library().intents["price"]["first"][:10])
    judged = heads.head([*PLAN, price]).judge("how much do you charge for that")
    assert (judged.intent, judged.sure) == ("costs", True)


def test_a_yes_and_a_no_are_no_answers_of_a_plan(heads: Heads) -> None:
    head = heads.head(PLAN)
    assert (head.judge("yes please").agrees, head.judge("yes please").intent) == (True, None)
    assert (head.judge("no that's not it").agrees, head.judge("no that's not it").intent) == (False, None)
    assert head.judge("when are you open").agrees is None


def test_between_two_answers_it_names_both(heads: Heads) -> None:
    head = heads.head(PLAN)
    first = (POSSIBLE + SURE) / 2
    judged = head.weigh({"hours": first * NEAR, "time": first, "person": 0.01})
    assert (judged.intent, judged.sure, judged.rival) == ("time", False, "hours")
    assert head.weigh({"hours": first * NEAR * 0.9, "time": first}).rival is None
    assert head.weigh({"hours": POSSIBLE * 0.9}).intent is None
    assert head.weigh({}).intent is None


def test_doubtful_words_need_a_more_certain_judgement(heads: Heads) -> None:
    head = heads.head(PLAN)
    chances = {"hours": (SURE + SURE_DOUBTED) / 2}
    assert head.weigh(chances, confidence=CLEAR).sure
    doubted = head.weigh(chances, confidence=CLEAR - 0.01)
    assert (doubted.intent, doubted.sure) == ("hours", False)
    assert head.weigh({"hours": SURE_DOUBTED}, confidence=CLEAR - 0.01).sure


def test_a_head_is_fitted_once(heads: Heads) -> None:
    assert heads.head(PLAN) is heads.head(list(PLAN))
    assert heads.head(PLAN) is not heads.head(PLAN[:2])


def test_sounds_of_thinking_and_marks_are_no_words() -> None:
    assert plain("Um, er... WHEN do you open?") == "when do you open"
    assert plain("um") == "um"


def test_the_library_is_written_by_more_than_one_hand() -> None:
    known = library()
    assert {
        "hours",
        "place",
        "time",
        "person",
        "repeat",
        "identity",
        "goodbye",
        "yes",
        "no",
        "price",
        "appointment",
    } <= set(known.intents)
    for name, hands in known.intents.items():
        assert len(hands) >= 2, name
        assert sum(map(len, hands.values())) >= 60, name
        assert all(text == " ".join(text.lower().split()) for some in hands.values() for text in some), name
    assert sum(map(len, known.negatives.values())) >= 300


def test_the_points_are_those_of_the_librarys_sentences(heads: Heads) -> None:
    texts = library().sentences()[::100]
    points = read_points(library())[::100]
    fresh = Embedder.load(MODELS).embed([plain(text) for text in texts])
    assert min(float(a @ b) for a, b in zip(points, fresh, strict=True)) > 0.99


@pytest.mark.parametrize(("fitted_on", "asked_with"), [("first", "second"), ("second", "first")])
def test_what_one_hand_wrote_is_understood_by_a_head_of_the_others(
    heads: Heads, fitted_on: str, asked_with: str
) -> None:
    """`python -m benchmarks.meaning` has the figures; this holds them from falling far."""
    head = heads.fit(PLAN, [fitted_on])

    def judge(text: str) -> Judgement:
        """As `head.judge` does, by the points that the library has already."""
        return head.weigh(head.chances(plain(text), heads.embed([plain(text)])[0]))

    known = [(text, one.intent) for one in PLAN for text in library().intents[one.intent][asked_with]]
    found = [(judge(text), intent) for text, intent in known]
    wrong = [judged for judged, intent in found if judged.sure and judged.intent != intent]
    good = [judged for judged, intent in found if intent in (judged.intent, judged.rival)]
    assert len(good) >= 0.85 * len(found)
    assert len(wrong) <= 0.02 * len(found)
    taken = [text for text in library().negatives[asked_with] if judge(text).sure]
    assert len(taken) <= 0.06 * len(library().negatives[asked_with])
