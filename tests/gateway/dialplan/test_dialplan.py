"""Which route takes a call, and which plans do not load."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.dialplan import (
    Converse,
    Dialplan,
    Gather,
    Route,
    Transfer,
    clock_facts,
    fill,
    fits,
    split_uri,
)
from gateway.dialplan.disclosure import WORDINGS
from gateway.errors import CallRefused, DialplanError

SHIPPED = Path(__file__).resolve().parents[3] / "dialplans"

ANSWER = '[[route.do]]\nverb = "answer"\n'
DISCLOSE = '[[route.do]]\nverb = "disclose"\nprincipal = "Lindens"\nlanguage = "en"\n'
CONVERSE = '[[route.do]]\nverb = "converse"\ninstructions = "Be kind."\n'
HANGUP = '[[route.do]]\nverb = "hangup"\n'


def route(name: str = "demo", *conditions: str, do: str = ANSWER + HANGUP) -> str:
    return "\n".join((f'[[route]]\nname = "{name}"', *(conditions or (f'called = ["{name}"]',)), do))


def load(folder: Path, *files: str) -> Dialplan:
    for number, text in enumerate(files):
        (folder / f"{number}.toml").write_text(text)
    return Dialplan.load(folder)


def refusal(folder: Path, *files: str) -> str:
    with pytest.raises(DialplanError) as caught:
        load(folder, *files)
    return str(caught.value).removeprefix(f"{folder}/")


# ── the shipped plans ────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_plans_load_and_demo_takes_its_calls() -> None:
    plan = Dialplan.load(SHIPPED)
    for called in ("sip:demo@127.0.0.1:5060", "demo", "sip:demo@192.0.2.7;transport=tcp"):
        assert plan.route(called=called).route.name == "demo"


def test_the_demo_discloses_before_it_converses_and_answers_what_it_must() -> None:
    demo = Dialplan.load(SHIPPED).route(called="demo").route
    assert [verb.verb for verb in demo.do] == ["answer", "disclose", "converse", "hangup"]
    converse = demo.do[2]
    assert {"hours", "place", "time", "person", "repeat", "goodbye"} <= {
        reply.intent for reply in converse.answers
    }


def test_every_phrase_of_the_demo_is_in_the_recognisers_dictionary() -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    words = {line.split(maxsplit=1)[0] for line in lines if line}
    converse = Dialplan.load(SHIPPED).route(called="demo").route.do[2]
    asks = [*(reply.ask for reply in converse.answers), WORDINGS["en"].ask]
    asked = {word for ask in asks for phrase in ask for word in phrase.split()}
    assert asked <= words


def test_the_menu_is_open_by_day_and_takes_messages_by_night() -> None:
    plan = Dialplan.load(SHIPPED)
    assert plan.route(called="menu", at=datetime(2026, 3, 2, 10)).route.name == "menu"
    night = plan.route(called="menu", at=datetime(2026, 3, 2, 20))
    assert night.route.name == "message"
    assert "outside mon-fri 09:00-18:00" in night.explain[-1]


# ── matching ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "user", "host"),
    [
        ("sip:demo@127.0.0.1:5060;transport=udp", "demo", "127.0.0.1"),
        ("<sip:demo@EXAMPLE.org>", "demo", "example.org"),
        ("sip:a@[2001:db8::1]:5060", "a", "[2001:db8::1]"),
        ("sip:example.org", "", "example.org"),
        ("+49 (30) 123-45", "+493012345", ""),
        ("tel:+49-30-123", "+4930123", ""),
        ("sip:bob:secret@host", "bob", "host"),
        ("a-b", "a-b", ""),
        ("sip:+49301234567;npdi;rn=+4930@127.0.0.1:5160;user=phone", "+49301234567", "127.0.0.1"),
        ("sip:+1-555-0100;npdi;rn=+1-555-0199;cic=+1-0288@gw", "+15550100", "gw"),
        ("tel:+49301234567;npdi;rn=+4930", "+49301234567", ""),
        ("sip:demo;ext=5@gw", "demo", "gw"),
        ("tel:1234567;phone-context=+4930", "+49301234567", ""),
        ("TEL:123-4567;isub=1;Phone-Context=+49(30)", "+49301234567", ""),
        ("sip:1234567;phone-context=+4930@gw;user=phone", "+49301234567", "gw"),
        ("tel:1234567;phone-context=example.com", "1234567", ""),
        ("tel:+49301;phone-context=+1", "+49301", ""),
        ("sip:bob;phone-context=+4930@gw", "bob", "gw"),
        ("sip:*21#@gw", "*21#", "gw"),
        ("sip:a?b@gw", "a", "gw"),
        ("sip:a@gw?Route=x", "a", "gw"),
        ("SIP:gw;transport=tcp", "", "gw"),
    ],
)
def test_a_uri_is_split_into_user_and_host(text: str, user: str, host: str) -> None:
    assert split_uri(text) == (user, host)


@pytest.mark.parametrize(
    ("pattern", "uri", "expected"),
    [
        ("demo", "sip:demo@anywhere", True),
        ("demo", "sip:demo2@anywhere", False),
        ("Demo", "sip:demo@anywhere", False),
        ("*", "sip:anybody@x", True),
        ("+4930*", "sip:+49-30-12@x", True),
        ("+49-30*", "sip:+493012@x", True),
        ("+4930*", "sip:+49301234567;npdi;rn=+4940@gw", True),
        ("+4940*", "sip:+49301234567;npdi;rn=+4940@gw", False),
        ("+49301234567", "tel:1234567;phone-context=+4930", True),
        ("sip:*@*.example.org", "sip:a@pbx.EXAMPLE.org:5080", True),
        ("sip:demo@other", "sip:demo@x", False),
        ("d.mo", "sip:demo@x", False),
    ],
)
def test_patterns(pattern: str, uri: str, expected: bool) -> None:
    assert fits(pattern, uri) is expected


def test_the_first_route_that_fits_wins_and_the_others_say_why_not(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        route("vip", 'called = ["*"]', 'caller = ["+4930*"]'),
        route("lan", 'called = ["*"]', 'source = ["10.0.0.0/8"]') + route("rest", 'called = ["1*"]'),
    )
    assert plan.route(called="1", caller="sip:+4930555@x").route.name == "vip"
    assert plan.route(called="1", caller="sip:bob@x", source="10.1.2.3").route.name == "lan"
    match = plan.route(called="12", caller="sip:bob@x", source="192.0.2.1")
    assert match.route.name == "rest"
    assert match.explain == (
        "vip: caller sip:bob@x fits none of +4930*",
        "lan: source 192.0.2.1 is in none of 10.0.0.0/8",
    )
    with pytest.raises(CallRefused) as refused:
        plan.route(called="2", caller="sip:bob@x", source="no address")
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("at", "open_"),
    [
        ("2026-03-02 08:59", False),  # a Monday
        ("2026-03-02 09:00", True),
        ("2026-03-02 16:59", True),
        ("2026-03-02 17:00", False),
        ("2026-03-07 10:00", False),  # a Saturday
        ("2026-03-06 23:30", True),  # Friday night, until two on Saturday
        ("2026-03-07 01:59", True),
        ("2026-03-07 02:00", False),
        ("2026-03-06 01:00", False),
    ],
)
def test_hours_are_of_the_routes_zone_and_may_pass_midnight(tmp_path: Path, at: str, open_: bool) -> None:
    hours = (
        'hours = [{ days = "mon-fri", from = "09:00", to = "17:00" }, '
        '{ days = "fri", from = "22:00", to = "02:00" }]'
    )
    plan = load(tmp_path, route("demo", 'called = ["demo"]', 'zone = "Europe/Berlin"', hours))
    when = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    for zone in ("Europe/Berlin", "Asia/Tokyo", "UTC"):
        found, _ = plan.explain(called="demo", at=when.astimezone(ZoneInfo(zone)))
        assert (found is not None) is open_


def test_a_window_may_have_a_zone_of_its_own_and_days_may_wrap(tmp_path: Path) -> None:
    hours = 'hours = [{ days = "sat-mon", from = 09:00:00, to = "24:00", zone = "America/New_York" }]'
    plan = load(tmp_path, route("demo", 'called = ["demo"]', hours))
    new_york = ZoneInfo("America/New_York")
    assert plan.explain(called="demo", at=datetime(2026, 3, 1, 23, 59, tzinfo=new_york))[0]
    assert not plan.explain(called="demo", at=datetime(2026, 3, 3, 12, tzinfo=new_york))[0]


# ── travelling ───────────────────────────────────────────────────────────────────────────────────────


def test_a_route_travels_as_json() -> None:
    for one in Dialplan.load(SHIPPED).routes:
        assert Route.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_route_brings_those_its_gathers_may_reach(tmp_path: Path) -> None:
    menu = (
        ANSWER
        + DISCLOSE
        + '[[route.do]]\nverb = "gather"\nprompt = "?"\nbranches = {{ 1 = "{}" }}\nelse = "menu"\n'
    )
    plan = load(
        tmp_path,
        route("menu", do=menu.format("sub")),
        '[[route]]\nname = "sub"\n' + menu.format("leaf"),
        '[[route]]\nname = "leaf"\n' + ANSWER,
        route("other"),
    )
    first = plan.route(called="menu").route
    assert {r.name for r in plan.reachable(first)} == {"sub", "leaf"}
    assert isinstance(first.do[2], Gather)
    assert first.do[2].otherwise == "menu"


def test_verbs_are_plain_dataclasses_with_defaults() -> None:
    converse = Converse(instructions="Be kind.")
    assert converse.silence_s == 6.0
    assert Transfer(target="person").say == ""


def test_prompts_are_what_is_said_when_no_engine_answers(tmp_path: Path) -> None:
    plan = load(tmp_path, route(do=ANSWER + DISCLOSE + CONVERSE + 'busy = "Busy."\nengine_lost = "Lost."\n'))
    assert plan.prompts() == ("Lost.", "Busy.", TOLD)


def test_openings_are_the_first_words_that_are_the_same_for_all(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        route("told", do=ANSWER + DISCLOSE + CONVERSE + 'greeting = "How can I help?"\n'),
        route("again", do=ANSWER + DISCLOSE + HANGUP),
        route("more", do=ANSWER + DISCLOSE + 'text = "We are closed."\n' + HANGUP),
        route("clock", do=ANSWER + DISCLOSE + 'text = "It is {time}."\n' + HANGUP),
        route("quiet"),
    )
    assert plan.openings() == (TOLD, f"{TOLD} We are closed.")


TOLD = "This is a machine with an AI voice. It speaks for Lindens."
LEADS = '[[route.do]]\nverb = "gather"\nprompt = "?"\nbranches = {{ 1 = "{}" }}\n'


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "One moment, please."),
        ("de", "Einen Moment, bitte."),
        ("fr-CA", "Un instant, s'il vous plaît."),
    ],
)
def test_a_route_that_a_gather_leads_to_has_a_text_for_a_moment_s_wait(
    tmp_path: Path, language: str, said: str
) -> None:
    menu = route(do=ANSWER + DISCLOSE + LEADS.format("sub"))
    plan = load(tmp_path, menu, route("sub", f'language = "{language}"', do=ANSWER))
    assert plan.prompts() == (TOLD, said), "rendered in advance; the route that nothing leads to has none"
    own = load(tmp_path, menu, route("sub", f'language = "{language}"', 'hold = "Wait."', do=ANSWER))
    assert own.prompts() == (TOLD, "Wait.")


def test_one_in_a_language_without_such_a_text_does_not_load(tmp_path: Path) -> None:
    menu, dutch = route(do=ANSWER + DISCLOSE + LEADS.format("sub")), 'language = "nl"'
    error = refusal(tmp_path, menu, route("sub", dutch, do=ANSWER))
    assert "'nl'" in error
    assert 'add hold = "' in error
    assert load(tmp_path, menu, route("sub", dutch, 'hold = "Een moment."', do=ANSWER)).prompts()
    assert load(tmp_path, route(), route("sub", dutch, 'called = ["x"]', do=ANSWER)), "nothing leads to it"


def test_a_text_for_a_moment_s_wait_holds_no_facts(tmp_path: Path) -> None:
    assert "rendered in advance" in refusal(
        tmp_path, route("demo", 'called = ["x"]', 'hold = "It is {time}."')
    )


def test_a_grant_fits_a_route_by_all_of_its_scope() -> None:
    here = Route(name="ads", voice="jane", purpose="marketing", language="de", without_voice="hangup")
    scope = here.scope("c1")
    assert here.is_spoken_by(scope)
    for part in ("voice", "purpose", "dialplan", "language"):
        assert not here.is_spoken_by(replace(scope, **{part: "other"}))
    stock = replace(scope, voice="heart")
    assert not here.is_spoken_by(stock)
    assert replace(here, without_voice="stock").is_spoken_by(stock)
    assert not replace(here, without_voice="stock").is_spoken_by(replace(scope, voice="joe"))


def test_facts_are_filled_in_and_the_clock_is_one() -> None:
    at = datetime(2026, 3, 2, 15, 5)
    assert clock_facts(at) == {"time": "3:05 PM", "date": "Monday, March 2", "weekday": "Monday"}
    assert fill("Open {hours}. It is {time}. {else}", {"hours": "daily"}, at) == (
        "Open daily. It is 3:05 PM. {else}"
    )
    assert clock_facts(datetime(2026, 3, 2, 0, 30))["time"] == "12:30 AM"


# ── what does not load: file, line, remedy ───────────────────────────────────────────────────────────

BOT = ANSWER + DISCLOSE + CONVERSE

MISTAKES = {
    "an unknown key": (route("demo", 'caled = ["x"]'), "0.toml:3:", "did you mean 'called'"),
    "an unknown table": ("[target]\n", "0.toml:1:", "did you mean 'targets'"),
    "an unknown verb": (route(do=ANSWER + '[[route.do]]\nverb = "ansver"\n'), "0.toml:7:", "mean 'answer'"),
    "no verb": (route(do=ANSWER + '[[route.do]]\ntext = "x"\n'), "0.toml:6:", "which verb?"),
    "a verb's unknown key": (
        route(do=ANSWER + '[[route.do]]\nverb = "say"\ntxt = "x"\n'),
        "0.toml:8:",
        "mean 'text'",
    ),
    "a missing field": (route(do=ANSWER + '[[route.do]]\nverb = "say"\n'), "0.toml:6:", "text is missing"),
    "a number as text": (route(do=BOT + 'silence_s = "5"\n'), "0.toml:13:", "silence_s = '5' should be"),
    "a number out of range": (route(do=BOT + "silence_s = 0\n"), "0.toml:13:", "greater than or equal to 1"),
    "no verbs": ('[[route]]\nname = "demo"\n', "0.toml:1:", 'verb = "answer"'),
    "answer is not first": (route(do=DISCLOSE + ANSWER), "0.toml:4:", 'first verb must be "answer"'),
    "answer twice": (route(do=ANSWER + ANSWER), "0.toml:6:", "answered once"),
    "after hangup": (route(do=ANSWER + HANGUP + DISCLOSE), "0.toml:8:", "nothing happens after hangup"),
    "a bot that does not say so": (route(do=ANSWER + CONVERSE), "0.toml:6:", "put this before it"),
    "a bot that says so too late": (route(do=ANSWER + CONVERSE + DISCLOSE), "0.toml:6:", "disclose"),
    "an unknown transfer target": (
        route(do=ANSWER + '[[route.do]]\nverb = "transfer"\ntarget = "bob"\n'),
        "0.toml:8:",
        'add bob = "sip:…"',
    ),
    "a conversation's unknown target": (
        route(do=BOT + 'transfer = "bob"\n'),
        "0.toml:13:",
        "no target 'bob'",
    ),
    "a target that is no URI": ('[targets]\nbob = "bob"\n', "0.toml:2:", "write for example"),
    "an unknown branch": (
        route(do=ANSWER + '[[route.do]]\nverb = "gather"\nprompt = "?"\nbranches = { 1 = "dmo" }\n'),
        "0.toml:9:",
        "did you mean 'demo'",
    ),
    "a branch that cannot be dialled": (
        route(do=ANSWER + '[[route.do]]\nverb = "gather"\nprompt = "?"\nbranches = { 12 = "demo" }\n'),
        "0.toml:9:",
        "longer than digits = 1",
    ),
    "an unknown fact": (route(do=BOT + 'greeting = "Open {hour}."\n'), "0.toml:13:", "{hour} is not a fact"),
    "an answer's unknown fact": (
        route(do=BOT + 'answers = [\n{ intent = "a", ask = ["a"], say = "{b}" },\n]\n'),
        "0.toml:14:",
        "{b} is not a fact",
    ),
    "one phrase for two intents": (
        route(
            do=BOT + 'answers = [{ intent = "a", ask = ["x y"], say = "1" },\n'
            '{ intent = "b", ask = ["z",\n"x y"], say = "2" }]\n'
        ),
        "0.toml:15:",
        "already means 'a'",
    ),
    "an answer that does nothing": (
        route(do=BOT + 'answers = [{ intent = "a", ask = ["x"] }]\n'),
        "0.toml:13:",
        "add say or tool",
    ),
    "a phrase no grammar has": (
        route(do=BOT + 'answers = [{ intent = "a", ask = ["What?"], say = "x" }]\n'),
        "0.toml:13:",
        "phrases are lower-case words",
    ),
    "an unknown intent of the library": (
        route(do=BOT + 'answers = [\n{ intent = "a", library = "ours", say = "x" },\n]\n'),
        "0.toml:14:",
        "unknown intent of the library 'ours'; did you mean 'hours'?",
    ),
    "an answer that nobody can ask for": (
        route(do=BOT + 'answers = [{ intent = "a", say = "x" }]\n'),
        "0.toml:13:",
        "nobody can ask for 'a'",
    ),
    "the library in another language": (
        route(
            "demo",
            'called = ["x"]',
            'language = "de"',
            do=BOT.replace('"en"', '"de"') + 'answers = [{ intent = "a", library = "hours", say = "x" }]\n',
        ),
        "0.toml:",
        "the library is English",
    ),
    "one intent of the library for two answers": (
        route(
            do=BOT + 'answers = [{ intent = "a", library = "hours", say = "1" },\n'
            '{ intent = "b", library = "hours", say = "2" }]\n'
        ),
        "0.toml:14:",
        "already means 'a'",
    ),
    "who is speaking, out of the library": (
        route(do=BOT + 'answers = [{ intent = "a", library = "identity", say = "Tom." }]\n'),
        "0.toml:13:",
        "hears the disclosure again",
    ),
    "days that are none": (
        route("demo", 'called = ["x"]', 'hours = [{ days = "mon-fry" }]'),
        "0.toml:4:",
        "write for example",
    ),
    "a time that is none": (
        route("demo", 'called = ["x"]', 'hours = [{ from = "25:00" }]'),
        "0.toml:4:",
        'for example "09:00"',
    ),
    "a zone that is none": (route("demo", 'called = ["x"]', 'zone = "Berlin"'), "0.toml:4:", "Europe/Berlin"),
    "a network that is none": (
        route("demo", 'called = ["x"]', 'source = ["lan"]'),
        "0.toml:4:",
        '"10.0.0.0/8"',
    ),
    "a route nobody reaches": ('[[route]]\nname = "demo"\n' + ANSWER, "0.toml:1:", "no call ever comes here"),
    "writing down in silence": (
        route("demo", 'called = ["x"]', "keep = { transcript = true }"),
        "0.toml:4:",
        "must be told",
    ),
    "a field only the loader fills": (
        route("demo", 'called = ["x"]', "line = 3"),
        "0.toml:4:",
        "unknown key",
    ),
    "no TOML": ("[[route]\n", "0.toml:1:", "not TOML"),
    "one bracket": ("[route]\nname = 'x'\n", "0.toml:1:", "with two brackets"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_file_line_and_remedy(tmp_path: Path, mistake: str) -> None:
    text, place, remedy = MISTAKES[mistake]
    message = refusal(tmp_path, text)
    assert message.startswith(place), message
    assert remedy in message


def test_two_files_may_not_share_names(tmp_path: Path) -> None:
    assert refusal(tmp_path, route(), route()).startswith("1.toml:2: route 'demo':")
    targets = '[targets]\nbob = "sip:bob@x"\n'
    assert refusal(tmp_path, targets, targets).startswith("1.toml:2:")


def test_a_folder_without_plans_or_routes_is_refused(tmp_path: Path) -> None:
    assert "no dialplan here" in refusal(tmp_path)
    assert "no route in any file" in refusal(tmp_path, "")
    with pytest.raises(DialplanError, match="no such folder"):
        Dialplan.load(tmp_path / "away")


@pytest.mark.parametrize(
    ("text", "line", "meant"),
    [
        (
            '[[route]]\nname = "demo\ncalled = ["x"]\n',
            2,
            "a text that begins on this line has no closing quote",
        ),
        ("[[route]]\nname = demo\n", 2, "a text stands in quotes"),
        ("[[route]]\nname\n", 2, "a line is key = value"),
        ('[[route]]\nname = "a"\nname = "b"\n', 3, "this key is there twice"),
        ('[targets]\na = "sip:a@x"\n[targets]\n', 3, "the table [targets] is there twice"),
        ('[targets]\na = "\\x"\n', 2, "backslash"),
        ('[[route]]\nname = "a" b\n', 2, "something stands behind the value"),
        ('[[route]]\ncalled = ["a"\n', 2, "a list has no closing ]"),
        ('[[route]]\nname = """demo\n', 2, "no closing quote"),
    ],
)
def test_what_is_no_toml_is_said_in_an_operators_words(
    tmp_path: Path, text: str, line: int, meant: str
) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f"0.toml:{line}: not TOML: "), said
    assert meant in said
    assert "\\n" not in said


def test_a_file_where_a_folder_is_meant_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(route())
    with pytest.raises(DialplanError, match=r"a\.toml: this is a file; name the folder that it is in"):
        Dialplan.load(tmp_path / "a.toml")


def test_a_voice_is_looked_for_among_those_that_are_known(tmp_path: Path) -> None:
    demo = route("demo", 'called = ["demo"]', 'voice = "janne"')
    (tmp_path / "0.toml").write_text(demo)
    assert Dialplan.load(tmp_path).routes[0].voice == "janne", "with nobody to ask, nobody looks"
    with pytest.raises(
        DialplanError, match=r"0\.toml:4: route 'demo': unknown voice 'janne'; did you mean 'jane'"
    ):
        Dialplan.load(tmp_path, {"heart", "jane"})
    (tmp_path / "0.toml").write_text(demo.replace('"janne"', '"janne"\nwithout_voice = "hangup"'))
    Dialplan.load(tmp_path, {"heart"})


def test_latin_1_is_refused_like_any_other_mistake(tmp_path: Path) -> None:
    (tmp_path / "0.toml").write_bytes(b"[targets]\n# M\xfchle\n")
    with pytest.raises(DialplanError, match="cannot be read"):
        Dialplan.load(tmp_path)
