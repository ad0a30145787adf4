"""Refuses a conversation whose answers or texts cannot be meant."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.dialplan import toml_lines
from gateway.dialplan.disclosure import WORDINGS, spoken_language
from gateway.dialplan.plan_facts import CLOCK_FACTS, facts_in
from gateway.dialplan.plan_file import Loaded
from gateway.dialplan.plan_languages import why_unled
from gateway.dialplan.plan_text import unknown
from gateway.dialplan.verbs import Converse, Reply
from model.meaning.intents import LANGUAGE as LIBRARY_LANGUAGE
from model.meaning.intents import library


def check_conversation(loaded: Loaded, verb: Converse, path: toml_lines.Path) -> None:
    """Raises `DialplanError` for the first mistake in the verb at `path`."""
    if (mistake := why_unled(loaded.route, verb)) is not None:
        place, why = mistake
        loaded.fail((*path, *place), why)
    known = CLOCK_FACTS | verb.facts.keys()
    for name, value in verb.facts.items():
        if any(fact.startswith("header.") for fact in facts_in(value)):
            loaded.fail(
                (*path, "facts", name),
                "an engine is told the facts, and nobody outside may write them: no header stands in one",
            )
    texts = ("instructions", "greeting", "goodbye", "no_transfer", "engine_lost", "busy", "other_language")
    for key in texts:
        check_facts(loaded, getattr(verb, key), known, (*path, key))
    check_facts(loaded, verb.unsure, known | {"about"}, (*path, "unsure"))
    check_facts(loaded, verb.which, known | {"about", "other"}, (*path, "which"))
    for key in ("not_understood", "silence_prompts"):
        for i, text in enumerate(getattr(verb, key)):
            check_facts(loaded, text, known, (*path, key, i))
    wording = WORDINGS.get(spoken_language(loaded.route.language))
    house = wording.ask if wording is not None else ()
    asked: dict[str, str] = {}
    intents: set[str] = set()
    named: dict[str, str] = {}
    for i, reply in enumerate(verb.answers):
        here = (*path, "answers", i)
        if reply.intent in intents:
            loaded.fail((*here, "intent"), f"there is another answer for {reply.intent!r}; join them")
        intents.add(reply.intent)
        _check_examples(loaded, reply, here)
        if (
            reply.library is not None
            and (other := named.setdefault(reply.library, reply.intent)) != reply.intent
        ):
            loaded.fail(
                (*here, "library"), f"{reply.library!r} already means {other!r}; one intent, one answer"
            )
        if not reply.say and reply.tool is None:
            loaded.fail(
                here, f"the answer for {reply.intent!r} neither says nor does anything; add say or tool"
            )
        check_facts(loaded, reply.say, known, (*here, "say"))
        for j, phrase in enumerate(reply.ask):
            said = " ".join(phrase.split())
            if said in house:
                loaded.fail(
                    (*here, "ask", j),
                    f"{phrase!r} asks who speaks, and the caller then hears the disclosure again; "
                    "remove this phrase",
                )
            other = asked.setdefault(said, reply.intent)
            if other != reply.intent:
                loaded.fail((*here, "ask", j), f"{phrase!r} already means {other!r}; one phrase, one intent")


def _check_examples(loaded: Loaded, reply: Reply, path: toml_lines.Path) -> None:
    """Whether the answer can be asked for: by examples, or by an intent of the engine's library."""
    if reply.library is None:
        if not reply.ask:
            loaded.fail(
                path,
                f'nobody can ask for {reply.intent!r}; add ask = ["…"], or library = "…" (an intent of it)',
            )
        return
    here = (*path, "library")
    language = spoken_language(loaded.route.language)
    if language != LIBRARY_LANGUAGE:
        loaded.fail(here, f"the library is English, and this route speaks {language!r}; give examples in ask")
    if reply.library not in library().intents:
        loaded.fail(here, unknown(reply.library, library().intents, what="intent of the library"))
    if reply.library == WORDINGS[language].library:
        loaded.fail(
            here,
            f"who asks for {reply.library!r} hears the disclosure again, word for word; remove this answer",
        )


def check_facts(loaded: Loaded, text: str, known: Iterable[str], path: toml_lines.Path) -> None:
    """Raises `DialplanError` for a fact in `text` that nobody knows there."""
    for fact in facts_in(text):
        if fact not in known:
            names = ", ".join(sorted(known))
            what = f"known are {names}" if names else "this text is rendered in advance, so it has none"
            loaded.fail(path, f"{{{fact}}} is not a fact here; {what}")
