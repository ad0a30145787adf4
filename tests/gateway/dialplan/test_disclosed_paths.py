"""A plan does not load where a word would come before the disclosure, on any way through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dialplan import Dialplan
from gateway.errors import DialplanError

TELL = '{ verb = "disclose", principal = "Lindens", language = "en" }'
TELL_OTHER = '{ verb = "disclose", principal = "Oaks", language = "en" }'
TELL_DE = '{ verb = "disclose", principal = "Lindens", language = "de" }'
SAY = '{ verb = "say", text = "Hello." }'
SPEAKING = {
    "say": SAY,
    "converse": '{ verb = "converse", instructions = "Be kind." }',
    "gather": '{ verb = "gather", prompt = "Press one.", branches = { 1 = "a" } }',
    "record": '{ verb = "record", announce = "It is recorded." }',
    "transfer": '{ verb = "transfer", target = "desk", say = "One moment." }',
    "hangup": '{ verb = "hangup", say = "Goodbye." }',
    "enroll": '{ verb = "enroll" }',
    "voice_owner": '{ verb = "voice_owner", voice = "jane" }',
}
SILENT = ('{ verb = "transfer", target = "desk" }', '{ verb = "hangup" }')


def route(name: str, *verbs: str, head: str = "", called: bool = True) -> str:
    takes = f'called = ["{name}"]\n' if called else ""
    do = "".join(f"  {verb},\n" for verb in ('{ verb = "answer" }', *verbs))
    return f'[[route]]\nname = "{name}"\n{takes}{head}do = [\n{do}]\n'


def to(*names: str) -> str:
    branches = ", ".join(f'{at} = "{name}"' for at, name in enumerate(names))
    return f'{{ verb = "gather", prompt = "Which?", branches = {{ {branches} }} }}'


def load(folder: Path, *routes: str) -> Dialplan:
    (folder / "a.toml").write_text('[targets]\ndesk = "sip:1@x"\n' + "".join(routes))
    return Dialplan.load(folder)


def refusal(folder: Path, *routes: str) -> str:
    with pytest.raises(DialplanError) as caught:
        load(folder, *routes)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("verb", SPEAKING)
def test_whatever_speaks_comes_after_the_disclosure(tmp_path: Path, verb: str) -> None:
    said = refusal(tmp_path, route("a", SPEAKING[verb]))
    assert said.startswith("a.toml:8: route 'a': " + verb)
    assert "who was not told that this is a machine" in said
    assert '{ verb = "disclose", principal = "Example Ltd", language = "en" },' in said
    refusal(tmp_path, route("a", SPEAKING[verb].replace("Hello", "I am a machine of Lindens")))
    load(tmp_path, route("a", TELL, SPEAKING[verb]))


@pytest.mark.parametrize("verb", SILENT)
def test_what_says_nothing_needs_none(tmp_path: Path, verb: str) -> None:
    load(tmp_path, route("a", verb))


def test_a_disclosure_holds_on_the_routes_that_a_gather_goes_on_to(tmp_path: Path) -> None:
    leaf = route("leaf", SAY, called=False)
    load(tmp_path, route("menu", TELL, to("sub", "menu")), route("sub", to("leaf"), called=False), leaf)


def test_a_route_that_is_also_called_by_itself_says_it_itself(tmp_path: Path) -> None:
    said = refusal(tmp_path, route("menu", TELL, to("leaf")), route("leaf", SAY))
    assert "route 'leaf': say speaks here to a caller who was not told" in said


def test_the_longest_way_is_looked_at(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        route("open", TELL, to("sub")),
        route("side", to("sub")).replace(
            '{ verb = "gather", prompt', TELL_DE + ',\n  { verb = "gather", prompt'
        ),
        route("sub", to("leaf"), called=False),
        route("leaf", SAY, called=False),
    )
    assert "route 'side'" in said
    assert "gather speaks 'en' here, and the caller was told in de only" in said


def test_another_language_says_it_anew(tmp_path: Path) -> None:
    german = 'language = "de-AT"\n'
    menu = route("menu", TELL, to("leaf"))
    said = refusal(tmp_path, menu, route("leaf", SAY, head=german, called=False))
    assert "say speaks 'de-AT' here when it comes from menu, and the caller was told in en only" in said
    assert 'language = "de"' in said
    load(tmp_path, menu, route("leaf", TELL_DE, SAY, head=german, called=False))
    load(tmp_path, route("menu", TELL, TELL_DE, to("leaf")), route("leaf", SAY, head=german, called=False))


def test_a_persons_voice_says_it_anew(tmp_path: Path) -> None:
    janes = 'voice = "jane"\nwithout_voice = "hangup"\n'
    menu = route("menu", TELL, to("leaf"))
    said = refusal(tmp_path, menu, route("leaf", SAY, head=janes, called=False))
    assert (
        "say speaks here when it comes from menu in the voice jane, and the caller was told of another"
        in said
    )
    load(tmp_path, menu, route("leaf", TELL, SAY, head=janes, called=False))
    load(tmp_path, route("menu", TELL, to("leaf"), head=janes), route("leaf", SAY, head=janes, called=False))
    joes = janes.replace("jane", "joe")
    refusal(
        tmp_path, route("menu", TELL, to("leaf"), head=janes), route("leaf", SAY, head=joes, called=False)
    )
    refusal(tmp_path, route("menu", TELL, to("leaf"), head=janes), route("leaf", SAY, called=False))


def test_who_speaks_for_another_says_so_first(tmp_path: Path) -> None:
    menu = route("menu", TELL, to("leaf"))
    said = refusal(tmp_path, menu, route("leaf", SAY, TELL_OTHER, called=False))
    assert "say speaks here when it comes from menu for another than Lindens, as the caller was told" in said
    load(tmp_path, menu, route("leaf", TELL_OTHER, SAY, called=False))


def test_a_language_without_words_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, route("a", TELL, SAY, head='language = "nl"\n'))
    assert said.startswith("a.toml:6: route 'a': this route speaks 'nl', in which there are no words")
    nl = TELL.replace('"en"', '"nl"')
    said = refusal(tmp_path, route("a", nl, SAY))
    assert "language = 'nl': there are no words for it; there are for en, de, fr, es, it" in said


def test_a_principal_that_names_nobody_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, route("a", TELL.replace("Lindens", "the assistant"), SAY))
    assert said.startswith("a.toml:8: principal = 'the assistant': it names the machine itself")


OLD = """[[route]]
name = "a"
called = ["a"]
language = "de"

[[route.do]]
verb = "answer"

[[route.do]]
verb = "disclose"
text = "Guten Tag, hier spricht eine Maschine."

[[route.do]]
verb = "say"
text = "Hallo."
"""
MISSING = OLD.replace(OLD[OLD.index('[[route.do]]\nverb = "disclose"') : OLD.rindex("[[route.do]]")], "")


@pytest.mark.parametrize("old", [OLD, MISSING])
def test_an_old_plan_loads_with_the_lines_that_its_error_shows(tmp_path: Path, old: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(old)
    with pytest.raises(DialplanError) as caught:
        Dialplan.load(tmp_path)
    place, _, shown = str(caught.value).partition("\n\n")
    number = int(place.removeprefix(f"{file}:").partition(":")[0])
    lines = shown.partition("\n\n")[0].strip().splitlines()
    assert lines[-2:] == ['principal = "Example Ltd"', 'language = "de"']
    rows = old.splitlines()
    at = number if old is OLD else number - 1
    file.write_text("\n".join((*rows[:at], *lines, *rows[at:])))
    (route,) = Dialplan.load(tmp_path).routes
    assert [verb.verb for verb in route.do] == ["answer", "disclose", "say"]


def test_a_phrase_that_asks_who_speaks_is_the_houses(tmp_path: Path) -> None:
    answers = 'answers = [{ intent = "who", ask = ["are  you a robot"], say = "No, I am Tom." }]'
    talk = f'{{ verb = "converse", instructions = "Be kind.", {answers} }}'
    said = refusal(tmp_path, route("a", TELL, talk))
    assert "'are  you a robot' asks who speaks, and the caller then hears the disclosure again" in said
