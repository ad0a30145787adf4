"""Which routes speak a language that their voice's owner did not consent to: their calls would be refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from consent.errors import ConsentError
from consent.service.voice_questions import ShowVoice
from gateway.cli.house.office_command import asked_office
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.disclosure import spoken_language
from gateway.dialplan.routes import persons_voice


def unconsented(plan: Dialplan, voices: Collection[str], settings: Settings) -> Iterator[tuple[Route, str]]:
    """Each such route, and what its callers hear; none of a voice whose record cannot be read.

    `voices`: the names of all that are registered. The office is asked, or started for this, only where a
    route has a person's voice.
    """
    persons = {voice for route in plan.routes if (voice := persons_voice(route.voice)) in voices and voice}
    if not persons:
        return
    consented = _consented(persons, settings)
    for route in plan.routes:
        languages = consented.get(route.voice)
        if languages is not None and spoken_language(route.language) not in languages:
            heard = "the stock voice" if route.without_voice == "stock" else "480"
            yield (
                route,
                f"{route.voice} consented to speaking {', '.join(sorted(languages))}, and this route speaks "
                f"{route.language}: callers hear {heard}",
            )


def _consented(voices: Collection[str], settings: Settings) -> dict[str, frozenset[str]]:
    """The languages (ISO 639-1) of each voice's consent, as far as they are known."""
    found: dict[str, frozenset[str]] = {}
    try:
        with asked_office(settings) as office:
            for voice in sorted(voices):
                claims = office.ask(ShowVoice(voice)).claims
                if claims is not None:
                    found[voice] = frozenset(claims["languages"])
    except ConsentError:  # the doctor's other checks say what is wrong with office, ledger or voice
        return found
    return found
