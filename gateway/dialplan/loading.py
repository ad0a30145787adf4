"""Reads a folder of dialplans and refuses what cannot be meant, each mistake with file, line and remedy."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from pydantic import ValidationError

from gateway.config.emergency import EMERGENCY, is_emergency
from gateway.config.toml_mistake import toml_mistake
from gateway.dialplan import toml_lines
from gateway.dialplan.conversation_checks import check_conversation, check_facts
from gateway.dialplan.disclosed_paths import Undisclosed, first_undisclosed, principal_lines
from gateway.dialplan.disclosure import WORDINGS, spoken_language
from gateway.dialplan.plan_facts import ATTESTATIONS, CLOCK_FACTS, HEADER_FACT, facts_in
from gateway.dialplan.plan_file import Loaded
from gateway.dialplan.plan_languages import unspeakable_text
from gateway.dialplan.plan_text import PlanFile, unknown
from gateway.dialplan.played_checks import check_played
from gateway.dialplan.routes import (
    ROUTE,
    Route,
    dumps,
    verb_adapter,
    weekdays_of,
    zone_of,
)
from gateway.dialplan.target_address import target_address
from gateway.dialplan.verbs import (
    NAME,
    VERBS,
    Answer,
    Converse,
    Disclose,
    Gather,
    Hangup,
    Playback,
    Record,
    Reply,
    Say,
    Transfer,
    Verb,
    branches_of,
    targets_of,
)
from gateway.errors import DialplanError

SAYING_HEADERS: Final = (Say, Transfer, Hangup)
"""Verbs that may say what a peer wrote: word for word, and by themselves."""
FILLED_BY_LOADER: Final = ("file", "line")
OF_EMERGENCY: Final = ("answer", "disclose", "say", "play", "hangup")
"""What a route for emergency numbers may do."""


class Folder(NamedTuple):
    """What a folder of plans says."""

    routes: tuple[Route, ...]
    """in order"""
    targets: dict[str, str]
    """of all files"""
    version: str
    """the first 12 hexadecimal digits of a SHA-256 over the files' names and texts"""


def read_folder(
    folder: Path,
    voices: Collection[str] | None,
    *,
    spoken: Collection[str] | None = None,
    words_leave: bool = False,
    emergency: Collection[str] = EMERGENCY,
    recordings: bool = True,
    mails: bool = True,
) -> Folder:
    """Arguments are those of `Dialplan.load`.

    Raises `DialplanError`.
    """
    try:
        files = sorted(folder.glob("*.toml"))
    except OSError as error:
        raise DialplanError(f"{folder}: {error.strerror}") from None
    if not files:
        raise DialplanError(f"{folder}: no dialplan here; put a *.toml file there, or name another folder")
    loaded: list[Loaded] = []
    targets: dict[str, str] = {}
    read = hashlib.sha256()
    for file in files:
        table, source = _read(file)
        for part in (file.name, "\n".join(source.rows)):
            read.update(f"{len(part)}\0{part}".encode("utf-8", "surrogateescape"))
        for name, uri in _targets(table, source).items():
            if is_emergency(uri, emergency):
                source.fail(("targets", name), f"{uri} is an emergency number, and this house calls none")
            if name in targets:
                source.fail(("targets", name), f"another file has a target {name!r} too; rename one")
            targets[name] = uri
        loaded.extend(_routes(table, source))
    for one in loaded:
        check_played(one, read=recordings)
        if not mails:
            _check_sends_none(one)
    if voices is not None:
        for one in loaded:
            _check_voice(one, voices)
    if spoken is not None:
        led_to = {name for one in loaded for verb in one.route.do for _, name in branches_of(verb)}
        for one in loaded:
            if (mistake := unspeakable_text(one.route, spoken, led_to)) is not None:
                one.fail(*mistake)
    return Folder(_joined(loaded, targets, words_leave), targets, read.hexdigest()[:12])


def _read(file: Path) -> tuple[dict[str, Any], PlanFile]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DialplanError(f"{file}: cannot be read: {error}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, what = toml_mistake(error, text)
        raise DialplanError(f"{file}:{line}: not TOML: {what}") from None
    source = PlanFile(str(file), toml_lines.lines_of(text), tuple(text.split("\n")))
    for key in table:
        if key not in ("route", "targets"):
            source.fail((key,), unknown(key, ("route", "targets")) + "; a file has [[route]] and [targets]")
    return table, source


def _targets(table: Mapping[str, Any], source: PlanFile) -> dict[str, str]:
    targets = table.get("targets", {})
    if not isinstance(targets, dict):
        source.fail(("targets",), 'targets are a table: [targets], then lines like person = "sip:…"')
    for name, uri in targets.items():
        if re.fullmatch(NAME, name) is None:
            source.fail(("targets", name), f"{name!r} is not a name; use lower-case letters, digits, - and _")
        try:
            target_address(uri if isinstance(uri, str) else repr(uri))
        except ValueError as error:
            source.fail(("targets", name), str(error))
    return targets


def _routes(table: Mapping[str, Any], source: PlanFile) -> Iterator[Loaded]:
    routes = table.get("route", [])
    if not isinstance(routes, list) or not all(isinstance(route, dict) for route in routes):
        source.fail(("route",), "a route is written [[route]], with two brackets")
    for index, given in enumerate(routes):
        path = ("route", index)
        verbs = given.get("do", [])
        if not isinstance(verbs, list) or not verbs or not all(isinstance(verb, dict) for verb in verbs):
            source.fail((*path, "do"), 'a route does something: add [[route.do]] with verb = "answer"')
        for key in FILLED_BY_LOADER:
            if key in given:
                source.fail((*path, key), unknown(key, _keys(Route)))
        head = {key: value for key, value in given.items() if key != "do"}
        route: Route = _typed(ROUTE.validate_json, head, Route, source, path)
        do = tuple(_verb(verb, source, (*path, "do", i), route.language) for i, verb in enumerate(verbs))
        loaded = Loaded(replace(route, do=do, file=source.file, line=source.line(path)), source, path)
        _check(loaded)
        yield loaded


def _verb(given: Mapping[str, Any], source: PlanFile, path: toml_lines.Path, language: str) -> Verb:
    name = given.get("verb")
    if name is None:
        source.fail(path, f"which verb? add one of: {', '.join(VERBS)}")
    if name not in VERBS:
        source.fail((*path, "verb"), unknown(str(name), VERBS, what="verb"))
    kind = VERBS[name]
    if kind is Disclose and (lines := principal_lines(language, given)):
        added = (", " if source.inline(path) else "\n").join(lines)
        source.fail(
            path,
            "a disclosure says that this is a machine and for whom it speaks. Add to this disclose, with the "
            f"name of your company:\n\n{added}\n\nThe gateway has the words; your text follows them.",
        )
    verb: Verb = _typed(verb_adapter(kind).validate_json, given, kind, source, path)
    return verb


def _typed(
    validate: Callable[[str], Any],
    given: Mapping[str, Any],
    kind: type[Any],
    source: PlanFile,
    path: toml_lines.Path,
) -> Any:
    try:
        return validate(dumps(given))
    except ValidationError as error:
        # a misspelt key shows twice, as unknown and as missing: the first is the one to fix
        mistakes = sorted(
            error.errors(), key=lambda mistake: mistake["type"] != "unexpected_keyword_argument"
        )
        first = mistakes[0]
        where = tuple(part for part in first["loc"] if part != "[key]")
        key = str(where[-1]) if where else ""
        if first["type"] == "unexpected_keyword_argument":
            inner = Reply if where[:1] == ("answers",) and kind is Converse else kind
            known = _keys(inner) if len(where) == 1 or inner is Reply else ()
            source.fail((*path, *where), unknown(key, known))
        if first["type"] == "missing":
            source.fail((*path, *where), f"{_dotted(where)} is missing")
        if first["type"] == "value_error":
            why = first["msg"].removeprefix("Value error, ")
            source.fail((*path, *where), f"{_dotted(where)} = {first['input']!r}: {why}")
        what = first["msg"].removeprefix("Input should ").removeprefix("String should ")
        source.fail((*path, *where), f"{_dotted(where)} = {first['input']!r} should {what}")


def _check(loaded: Loaded) -> None:
    """Refuses a route that is wrong by itself, whatever the others are."""
    route = loaded.route
    _check_conditions(loaded)
    check_facts(loaded, route.hold, (), ("hold",))
    early = next((i for i, verb in enumerate(route.do) if not isinstance(verb, Playback)), len(route.do) - 1)
    if not isinstance(route.do[early], Answer):
        loaded.fail(
            ("do", early),
            'the first verb must be "answer", after recordings at most; put it before this one',
        )
    for i, verb in enumerate(route.do):
        if route.emergency and verb.verb not in OF_EMERGENCY:
            loaded.fail(
                ("do", i),
                "a route for emergency numbers says that nobody is called for help here, and ends: "
                f"{', '.join(OF_EMERGENCY)}; take {verb.verb} out",
            )
        if isinstance(verb, Answer) and i > early:
            loaded.fail(("do", i), "a call is answered once; remove this verb")
        if isinstance(verb, Hangup) and i < len(route.do) - 1:
            loaded.fail(
                ("do", i + 1), "nothing happens after hangup; remove this verb, or move hangup to the end"
            )
        if isinstance(verb, Converse):
            check_conversation(loaded, verb, ("do", i))
        elif isinstance(verb, Gather):
            if not verb.prompt and verb.file is None:
                loaded.fail(("do", i), "prompt is missing, or file, a recording that asks")
            for digits in verb.branches:
                if len(digits) > verb.digits:
                    loaded.fail(
                        ("do", i, "branches", digits), f"{digits!r} is longer than digits = {verb.digits}"
                    )
        elif not isinstance(verb, Playback):
            for key in ("before", "text", "say", "announce"):
                text = getattr(verb, key, "")
                told = {fact for fact in facts_in(text) if HEADER_FACT.fullmatch(fact)}
                known = CLOCK_FACTS | told if isinstance(verb, SAYING_HEADERS) else CLOCK_FACTS
                check_facts(loaded, text, known, ("do", i, key))
    if route.keep.transcript and not any(isinstance(verb, Disclose) for verb in route.do):
        loaded.fail(("keep",), "a caller must be told that it is written down; say so in a disclose verb")


def _check_voice(loaded: Loaded, voices: Collection[str]) -> None:
    """Refuses a voice that nobody has registered, where the caller would hear another voice instead."""
    route = loaded.route
    if route.voice not in voices and route.without_voice == "stock":
        loaded.fail(
            ("voice",),
            f"{unknown(route.voice, sorted(voices), what='voice')} (callers would hear the stock voice: "
            'register this one first, or set without_voice = "hangup" to take no call until it is there)',
        )


def _check_sends_none(loaded: Loaded) -> None:
    for i, verb in enumerate(loaded.route.do):
        if isinstance(verb, Record) and verb.notify:
            loaded.fail(("do", i, "notify"), "notify needs VOICEGATE_MAIL_RELAY and VOICEGATE_MAIL_FROM")


def _check_conditions(loaded: Loaded) -> None:
    route = loaded.route
    for name, patterns in route.headers.items():
        if not patterns or not all(patterns):
            loaded.fail(("headers", name), 'of a header some pattern must fit; write ["*"] for any')
        if name == "attestation" and not set(patterns) <= set(ATTESTATIONS):
            loaded.fail(("headers", name), f"an attestation is one of {', '.join(ATTESTATIONS)}")
    for i, network in enumerate(route.source):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            loaded.fail(("source", i), f'{network!r} is not a network; write for example "10.0.0.0/8"')
    for key in ("called", "caller"):
        for i, pattern in enumerate(getattr(route, key)):
            if not pattern.strip():
                loaded.fail((key, i), 'an empty pattern fits nothing; write a user, a number, or "*"')
    try:
        zone_of(route.zone)
    except ValueError as error:
        loaded.fail(("zone",), str(error))
    for i, hours in enumerate(route.hours):
        key = "days"
        try:
            weekdays_of(hours.days)
            key = "from"
            hours.minutes()
            key = "zone"
            zone_of(hours.zone)
        except ValueError as error:
            loaded.fail(("hours", i, key), str(error))


def _joined(loaded: list[Loaded], targets: Mapping[str, str], words_leave: bool) -> tuple[Route, ...]:
    """The routes, once each name is known to lead to a target or to a route that another one leads to."""
    by_name: dict[str, Loaded] = {}
    reached: set[str] = set()
    for one in loaded:
        if (other := by_name.setdefault(one.route.name, one)) is not one:
            one.fail(("name",), f"{other.source.file}:{other.route.line} has this name too; rename one")
    for one in loaded:
        for i, verb in enumerate(one.route.do):
            for key, name in targets_of(verb):
                if name not in targets:
                    known = f"there are {', '.join(targets)}" if targets else "there are none"
                    one.fail(
                        ("do", i, key), f'no target {name!r} in [targets] ({known}); add {name} = "sip:…"'
                    )
            for path, name in branches_of(verb):
                if name not in by_name:
                    one.fail(("do", i, *path), unknown(name, by_name, what="route"))
                reached.add(name)
    routes = {name: one.route for name, one in by_name.items()}
    if (early := first_undisclosed(routes, words_leave=words_leave)) is not None:
        _fail_undisclosed(by_name[early.route.name], early)
    for one in loaded:
        if one.route.name in reached and not (one.route.hold_text or one.route.voiceless):
            one.fail(
                ("language",),
                f"no text is known for a moment's wait in {one.route.language!r}, and a route leads here; "
                'add hold = "…": the stock voice says it when this route\'s voice is not ready at once',
            )
        if not one.route.called and one.route.name not in reached:
            one.fail((), 'no call ever comes here; add called = ["…"], or name it in another route')
    return tuple(one.route for one in loaded)


def _fail_undisclosed(one: Loaded, early: Undisclosed) -> NoReturn:
    """Names the words that come too early, and the lines that are missing before them."""
    if spoken_language(one.route.language) not in WORDINGS:
        one.fail(
            ("language",),
            f"this route speaks {one.route.language!r}, in which there are no words to say that a machine "
            f"speaks; there are for {', '.join(WORDINGS)} (gateway/dialplan/disclosure.toml)",
        )
    if early.lacks_processor:
        one.fail(
            ("do", early.at),
            f"{early.why}. Add to the disclose before it, with the company's name:\n\n"
            'processor = "Example AI Ltd"\n\n'
            "The gateway then says so in the disclosure's language. A server on this machine needs none.",
        )
    lines = principal_lines(one.route.language, ())
    table = '[[route.do]]\nverb = "disclose"\n' + "\n".join(lines)
    if one.source.inline((*one.path, "do", early.at)):
        table = f'{{ verb = "disclose", {", ".join(lines)} }},'
    one.fail(
        ("do", early.at),
        f"{early.why}; put this before it, with the name of your company:\n\n{table}\n",
    )


def _keys(kind: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's fields as the author of a plan writes them."""
    aliases = {"otherwise": "else", "opens": "from", "closes": "to"}
    return tuple(aliases.get(f.name, f.name) for f in fields(kind) if f.name not in FILLED_BY_LOADER)


def _dotted(path: toml_lines.Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
