"""Where callers are led by their language, and which words nobody could say."""

from __future__ import annotations

from pathlib import Path

import pytest

from consent.models.model_files import locked_model
from gateway.dialplan import Converse, Dialplan
from gateway.dialplan.disclosure import WORDINGS
from gateway.dialplan.plan_languages import COUNTRIES, HEARD, SCRIPTS, UNSPOKEN, why_unspeakable
from gateway.dialplan.routes import HOLDS
from gateway.errors import DialplanError
from tests.gateway.dialplan.test_disclosed_paths import TELL, route
from tests.needs import need_model

ENGLISH = frozenset({"en"})
TELL_ES = '{ verb = "disclose", principal = "Lindens", language = "es" }'
PERSON = '{ verb = "transfer", target = "desk" }'


def talk(*fields: str) -> str:
    return "{ " + ", ".join(('verb = "converse"', 'instructions = "x"', *fields)) + " }"


def led(*languages: str) -> str:
    return talk(f"languages = {{ {', '.join(languages)} }}")


SPANISH = route(
    "spanish", TELL_ES, talk('greeting = "¿En qué puedo ayudarle?"'), head='language = "es"\n', called=False
)
DESK = route("desk", PERSON, called=False)


def load(folder: Path, *routes: str, spoken: frozenset[str] | None = None) -> Dialplan:
    (folder / "a.toml").write_text('[targets]\ndesk = "sip:1@x"\n' + "".join(routes))
    return Dialplan.load(folder, spoken=spoken)


def refusal(folder: Path, *routes: str, spoken: frozenset[str] | None = None) -> str:
    with pytest.raises(DialplanError) as caught:
        load(folder, *routes, spoken=spoken)
    return str(caught.value).removeprefix(f"{folder}/")


# ── where languages lead ─────────────────────────────────────────────────────────────────────────────────


def test_a_language_leads_to_a_route_whatever_that_does(tmp_path: Path) -> None:
    message = route("message", TELL, '{ verb = "record", announce = "It is recorded." }', called=False)
    languages = led('es = "spanish"', 'fr = "message"', 'else = "desk"')
    plan = load(tmp_path, route("a", TELL, languages), SPANISH, message, DESK)
    first = plan.routes[0]
    (verb,) = (one for one in first.do if isinstance(one, Converse))
    assert verb.languages == {"es": "spanish", "fr": "message", "else": "desk"}
    assert {other.name for other in plan.reachable(first)} == {"spanish", "message", "desk"}
    assert plan.hears_languages
    assert "Un momento, por favor." in plan.prompts(), "the stock voice asks for a moment in that language"


def test_a_plan_without_languages_has_nobody_listen_for_them(tmp_path: Path) -> None:
    assert not load(tmp_path, route("a", TELL, talk())).hears_languages


def test_the_machine_is_told_again_in_the_caller_s_language(tmp_path: Path) -> None:
    untold = route("spanish", talk(), head='language = "es"\n', called=False)
    said = refusal(tmp_path, route("a", TELL, led('es = "spanish"')), untold)
    assert "converse speaks 'es' here when it comes from a, and the caller was told in en only" in said
    assert 'language = "es"' in said


def test_whoever_speaks_english_finds_back(tmp_path: Path) -> None:
    back = route("spanish", TELL_ES, led('en = "a"'), head='language = "es"\n', called=False)
    load(tmp_path, route("a", TELL, led('es = "spanish"')), back)


@pytest.mark.parametrize(
    ("languages", "why"),
    [
        ('sp = "desk"', "'sp' is not a language; did you mean 'es'?"),
        ('xx = "desk"', "'xx' is not a language that can be heard; there are af, am, ar"),
        ('ga = "desk"', "'ga' is not a language that can be heard"),
        ('spanish = "desk"', "'spanish' is not a language that can be heard"),
        ('ES = "desk"', "'ES' is not a language that can be heard"),
        ('es-MX = "desk"', "where a caller comes from is not heard; write 'es' for 'es-MX'"),
        ('en = "desk"', "'en' is what this route speaks"),
        ('es = "a"', "'es' leads back to this route"),
        ('else = "a"', "'else' leads back to this route"),
        ('es = "dsk"', "unknown route 'dsk'; did you mean 'desk'?"),
        ('es = "De sk"', "should match pattern"),
        ('es = ["desk"]', "should be a valid string"),
        ('es = { route = "desk" }', "should be a valid string"),
        ("es = 1", "should be a valid string"),
    ],
)
def test_what_leads_nowhere_does_not_load(tmp_path: Path, languages: str, why: str) -> None:
    said = refusal(tmp_path, route("a", TELL, led(languages)), DESK)
    assert said.startswith("a.toml:9: "), said
    assert why in said, said


def test_a_route_in_a_language_that_nobody_can_hear_hears_for_none(tmp_path: Path) -> None:
    spoken = route("a", PERSON, led('es = "desk"'), head='language = "ga"\nhold = "x"\n')
    assert "this route's own language is heard for, too, and 'ga' is not" in refusal(tmp_path, spoken, DESK)


def test_a_caller_whom_nobody_understands_is_told_so_in_the_route_s_language(tmp_path: Path) -> None:
    polish = 'language = "pl"\nhold = "chwileczkę"\n'
    said = refusal(tmp_path, route("a", led('es = "desk"'), head=polish), DESK)
    assert "no text is known in 'pl' for a caller who speaks a language that is not named" in said
    assert set(UNSPOKEN) == set(HOLDS) == set(WORDINGS), "each language of the house has one"


@pytest.mark.parametrize("fields", [(), ('languages = { es = "desk", else = "desk" }',)])
def test_a_text_that_is_never_said_does_not_load(tmp_path: Path, fields: tuple[str, ...]) -> None:
    unsaid = talk('other_language = "No."', *fields)
    assert "nobody ever hears this" in refusal(tmp_path, route("a", TELL, unsaid), DESK)


def test_its_facts_are_the_conversation_s(tmp_path: Path) -> None:
    said = refusal(
        tmp_path, route("a", TELL, talk('languages = { es = "desk" }', 'other_language = "{x}"')), DESK
    )
    assert "{x} is not a fact here" in said


def test_the_lists_of_languages_are_whispers() -> None:
    """Its English weights list the same ones as those that tell them apart."""
    name = "whisper-tiny-en"
    words = locked_model(name).read(need_model(name), "vocabulary.txt").decode().split()
    tokens = (word[2:-2] for word in words if word.startswith("<|") and word.endswith("|>"))
    codes = {token for token in tokens if token.isalpha() and len(token) < 4}
    assert codes - {"iw"} | {"he"} == HEARD, "only they call Hebrew by its old code"
    assert set(COUNTRIES.values()) | set(SCRIPTS) | set(WORDINGS) <= HEARD
    assert not set(COUNTRIES) & HEARD, "what is a language is not taken for a country"


# ── what cannot be said ──────────────────────────────────────────────────────────────────────────────────


def test_a_route_in_a_language_that_the_engine_cannot_speak_does_not_load(tmp_path: Path) -> None:
    english = route("a", TELL, led('es = "spanish"'))
    load(tmp_path, english, SPANISH, spoken=frozenset({"en", "es"}))
    load(tmp_path, english, SPANISH)  # nobody knows what the engine speaks
    said = refusal(tmp_path, english, SPANISH, spoken=ENGLISH)
    assert "route 'spanish': this is to be said in 'es', and the engine speaks en only" in said


def test_such_callers_may_be_led_to_a_person_without_a_word(tmp_path: Path) -> None:
    load(tmp_path, route("a", TELL, led('es = "desk"')), DESK, spoken=ENGLISH)
    silent = route("desk", PERSON, head='language = "es"\n', called=False)
    said = refusal(tmp_path, route("a", TELL, led('es = "desk"')), silent, spoken=ENGLISH)
    assert "this is to be said in 'es'" in said, "the stock voice may ask for a moment there"
    load(tmp_path, route("desk", PERSON, head='language = "es"\n'), spoken=ENGLISH)


def test_a_country_is_not_a_language(tmp_path: Path) -> None:
    load(tmp_path, route("a", TELL, talk(), head='language = "en-GB"\n'), spoken=ENGLISH)


@pytest.mark.parametrize(
    "fields",
    [
        'greeting = "Добрый день"',
        'goodbye = "再见"',
        'silence_prompts = ["Are you there?", "Ναι;"]',
        'answers = [{ intent = "x", ask = ["x"], say = "مرحبا" }]',
        'answers = [{ intent = "x", ask = ["x"], about = "감사", say = "x" }]',
        'facts = { place = "улица 5" }, greeting = "We are at {place}."',
        'languages = { es = "desk" }, other_language = "¿Perdón?"',
    ],
)
def test_words_in_another_script_do_not_load(tmp_path: Path, fields: str) -> None:
    said = refusal(tmp_path, route("a", TELL, talk(fields)), DESK, spoken=ENGLISH)
    assert said.startswith("a.toml:9: route 'a': nobody can say this: ")


def test_what_nobody_says_may_be_in_any_script(tmp_path: Path) -> None:
    unsaid = 'facts = { note = "улица" }, answers = [{ intent = "x", ask = ["привет"], say = "Hello." }]'
    load(tmp_path, route("a", TELL, talk(unsaid)), spoken=ENGLISH)


@pytest.mark.parametrize(
    "text",
    [
        "José Núñez, Łódź, Đorđe and Çağla meet Frau Groß at the café in Århus.",
        "It costs 5 µg or 3 Ω; π is 3.14 and α is small.",
        "naïve façade, Ørsted, Þórr, Zoë — “quoted” … and so on!",
        "Llámenos, s'il vous plaît, bitte schön",
        "№ 5, 20 °C, ½, €5",
    ],
)
def test_names_loans_and_symbols_are_no_other_language(text: str) -> None:
    assert why_unspeakable(text, ENGLISH) is None


@pytest.mark.parametrize(
    ("text", "spoken"),
    [("Добрый день", {"ru"}), ("Привіт", {"en", "uk"}), ("¿Qué tal?", {"es"}), ("東京タワー", {"ja"})],
)
def test_a_voice_that_has_the_language_may_say_it(text: str, spoken: set[str]) -> None:
    assert why_unspeakable(text, spoken) is None
    assert why_unspeakable(text, ENGLISH) is not None
