"""Routes by who calls, as a trusted peer says it; and calls for help, which no route takes by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dialplan import Dialplan, Route
from gateway.dialplan.plan_facts import HEADER_FACT, header_facts
from gateway.edge.grammar.peer_headers import NAMED
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


@pytest.mark.parametrize("target", ["tel:112", "sip:911@gw", "trunk:carrier/112", "trunk:carrier/+999"])
def test_no_target_is_a_number_for_help(tmp_path: Path, target: str) -> None:
    said = refusal(tmp_path, f'[targets]\nhelp = "{target}"\n' + route())
    assert f"{target} is an emergency number" in said


@pytest.mark.parametrize("target", ["trunk:carrier/{header.x-a}", "user:{header.x-a}", "sip:{header.x-a}@gw"])
def test_no_peer_writes_a_target(tmp_path: Path, target: str) -> None:
    do = ANSWER + DISCLOSE + '[[route.do]]\nverb = "transfer"\ntarget = "who"\n'
    plan = f'[targets]\nwho = "{target}"\n' + route(do=do)
    if target.startswith("sip:"):  # braces are letters there, and stay what they are
        assert load(tmp_path, plan).targets == {"who": target}
    else:
        assert "is not an address" in refusal(tmp_path, plan)


# ── what a trusted peer says ─────────────────────────────────────────────────────────────────────────

ASSERTED = '"Ann Lee" <sip:+4930123@carrier.example;user=phone>'


@pytest.mark.parametrize(
    ("condition", "headers", "takes"),
    [
        ('p-asserted-identity = ["+4930*"]', {"p-asserted-identity": ASSERTED}, True),
        ('p-asserted-identity = ["+4930*"]', {"p-asserted-identity": "<tel:+49-30-1>"}, True),
        ('p-asserted-identity = ["*@carrier.example"]', {"p-asserted-identity": ASSERTED}, True),
        ('p-asserted-identity = ["+4940*"]', {"p-asserted-identity": ASSERTED}, False),
        ('p-asserted-identity = ["*"]', {}, False),
        ('x-customer = ["gold", "silver*"]', {"x-customer": "silver 2"}, True),
        ('x-customer = ["gold"]', {"x-customer": "golden"}, False),
        ('x-customer = ["gold"], privacy = ["id"]', {"x-customer": "gold"}, False),
        ('diversion = ["100"]', {"diversion": "<sip:100@pbx>;reason=no-answer, <sip:200@pbx>"}, True),
        ('diversion = ["200"]', {"diversion": "<sip:100@pbx>;reason=no-answer, <sip:200@pbx>"}, True),
    ],
)
def test_a_route_may_want_a_header(
    tmp_path: Path, condition: str, headers: dict[str, str], takes: bool
) -> None:
    plan = load(tmp_path, route("known", 'called = ["*"]', f"headers = {{ {condition} }}"))
    found, why = plan.explain(called="demo", headers=headers)
    assert (found is not None) is takes
    assert takes or why[0].startswith("known: header ")


@pytest.mark.parametrize(
    ("said", "takes"), [("A", True), ("B", True), ("C", False), ("none", False), ("", False)]
)
def test_a_route_may_want_what_a_network_signed(tmp_path: Path, said: str, takes: bool) -> None:
    text = SAYS.replace("{header.x-name}", "{header.attestation}")
    plan = load(
        tmp_path,
        route(
            "signed", 'called = ["*"]', 'headers = { attestation = ["A", "B"] }', do=ANSWER + DISCLOSE + text
        ),
    )
    assert plan.explain(called="demo")[0] is None
    told = {"attestation": said, "attestation-why": "not signed"}
    assert (plan.explain(called="demo", headers=told)[0] is not None) is takes
    assert header_facts("{header.attestation}", told) == {"header.attestation": said}


@pytest.mark.parametrize("level", ["a", "A*", "*", "D", "None"])
def test_an_attestation_is_one_of_four(tmp_path: Path, level: str) -> None:
    said = refusal(tmp_path, route("a", 'called = ["*"]', f'headers = {{ attestation = ["{level}"] }}'))
    assert "one of A, B, C, none" in said


def test_headers_travel_with_the_route(tmp_path: Path) -> None:
    plan = load(tmp_path, route("known", 'called = ["*"]', 'headers = { x-a = ["1"] }'))
    assert Route.from_json(plan.routes[0].to_json()) == plan.routes[0]


@pytest.mark.parametrize("name", ["from", "x-vg-call", "X-Customer", "authorization", "x-", '"x y"'])
def test_no_route_may_want_another_one(tmp_path: Path, name: str) -> None:
    assert "headers" in refusal(tmp_path, route("a", 'called = ["*"]', f'headers = {{ {name} = ["*"] }}'))


def test_a_pattern_must_be_there(tmp_path: Path) -> None:
    assert '["*"]' in refusal(tmp_path, route("a", 'called = ["*"]', "headers = { x-a = [] }"))


SAYS = '[[route.do]]\nverb = "say"\ntext = "Good day, {header.x-name}. It is {time}."\n'


def test_a_header_may_be_said(tmp_path: Path) -> None:
    plan = load(tmp_path, route(do=ANSWER + DISCLOSE + SAYS + HANGUP))
    text = plan.routes[0].do[2].text
    assert header_facts(text, {"x-name": "Ann"}) == {"header.x-name": "Ann"}
    assert header_facts(text, None) == {"header.x-name": ""}
    assert not any("{" in said for said in plan.openings())


@pytest.mark.parametrize(
    "do",
    [
        '[[route.do]]\nverb = "converse"\ninstructions = "Be kind to {header.x-name}."\n',
        CONVERSE + 'greeting = "Hello {header.x-name}"\n',
        CONVERSE + 'facts = { who = "{header.x-name}" }\n',
        CONVERSE + '[[route.do.answers]]\nintent = "who"\nask = ["who am i"]\nsay = "{header.x-name}"\n',
        '[[route.do]]\nverb = "record"\nannounce = "Speak."\nname = "{header.x-name}"\n',
        '[[route.do]]\nverb = "record"\nannounce = "Speak, {header.x-name}."\n',
        '[[route.do]]\nverb = "transfer"\ntarget = "{header.x-target}"\n',
        '[[route.do]]\nverb = "say"\ntext = "{header.authorization}"\n',
        '[[route.do]]\nverb = "say"\ntext = "{header.x-vg-auth}"\n',
    ],
)
def test_where_a_stranger_may_not_write_a_header_does_not_load(tmp_path: Path, do: str) -> None:
    assert refusal(tmp_path, route(do=ANSWER + DISCLOSE + do + HANGUP))


def test_nobody_writes_a_voice_or_a_disclosure(tmp_path: Path) -> None:
    assert refusal(tmp_path, route(do=ANSWER + DISCLOSE + 'text = "{header.x-name}"\n' + HANGUP))
    assert refusal(tmp_path, route("a", 'called = ["a"]', 'voice = "{header.x-name}"'))


def test_the_edge_and_the_plans_know_the_same_headers() -> None:
    assert all(HEADER_FACT.fullmatch(f"header.{name}") for name in (*NAMED, "x-customer-id"))
    assert not HEADER_FACT.fullmatch("header.x-vg-call")
