"""Routes by who calls, as a trusted peer says it; and calls for help, which no route takes by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dialplan import Dialplan
from gateway.errors import CallRefused
from tests.gateway.dialplan.test_dialplan import ANSWER, CONVERSE, DISCLOSE, HANGUP, load, refusal, route

SORRY = '[[route.do]]\nverb = "say"\ntext = "Nobody hears you here. Use another telephone."\n'
RECORDING = ANSWER + DISCLOSE + SORRY + HANGUP


# ── calls for help ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("called", ["112", "sip:+911@x", "tel:999", "urn:service:sos.fire"])
def test_no_route_takes_a_call_for_help_by_chance(tmp_path: Path, called: str) -> None:
    plan = load(tmp_path, route("any", 'called = ["*"]'), route("named", f'called = ["{called}"]'))
    with pytest.raises(CallRefused, match="use another telephone") as refused:
        plan.route(called=called)
    assert refused.value.status == 380
    assert not plan.answers_emergencies
    assert plan.explain(called=called)[1][0] == f"any: {called} is an emergency number"


def test_a_recording_takes_it_and_nothing_else(tmp_path: Path) -> None:
    sorry = route("sorry", 'called = ["*"]', "emergency = true", do=RECORDING)
    plan = load(tmp_path, sorry + route("any", 'called = ["*"]'))
    assert plan.answers_emergencies
    assert plan.route(called="sip:112@x").route.name == "sorry"
    assert plan.route(called="urn:service:sos").route.name == "sorry"
    assert plan.route(called="sip:demo@x").route.name == "any"


def test_a_house_may_have_other_numbers(tmp_path: Path) -> None:
    (tmp_path / "0.toml").write_text(route("any", 'called = ["*"]'))
    plan = Dialplan.load(tmp_path, emergency=("000",))
    assert plan.route(called="112").route.name == "any"
    with pytest.raises(CallRefused):
        plan.route(called="000")


@pytest.mark.parametrize("verb", [CONVERSE, '[[route.do]]\nverb = "record"\nannounce = "Speak."\n'])
def test_what_lets_a_caller_believe_in_help_does_not_load(tmp_path: Path, verb: str) -> None:
    wrong = route("sorry", 'called = ["*"]', "emergency = true", do=ANSWER + DISCLOSE + verb + HANGUP)
    assert "nobody is called for help here" in refusal(tmp_path, wrong)


def test_no_target_is_a_number_for_help(tmp_path: Path) -> None:
    said = refusal(tmp_path, '[targets]\nhelp = "tel:112"\n' + route())
    assert "tel:112 is an emergency number" in said
