"""Every message between processes: what its fields are, and that it comes out as it went in."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as some

import gateway
import model
from gateway.dialplan import Answer, Converse, Gather, Hours, Keep, Reply, Route, Say
from gateway.errors import OtherVersion, RpcError
from gateway.ipc import codec, envelope
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Ask, Message, Tell, answer_type
from gateway.ipc.framing import MAX_MESSAGE, framed, length_of
from gateway.ipc.hall_messages import CallOffer, Health
from gateway.ipc.hello import Hello, TickHello, admitted
from gateway.ipc.line_messages import CallStarted, KeyPressed, ShowCaller, ShownState

LOOSE = (Any, object, dict, list, tuple, set, Mapping, Sequence)
"""What no field may be without saying of what."""

ROUTES = (
    Route(name="demo", called=("100",), do=(Answer(), Say(text="hello"))),
    Route(
        name="open",
        hours=(Hours(days="mon-fri", opens="09:00"),),
        zone="Europe/Berlin",
        keep=Keep(transcript=True),
        do=(
            Answer(),
            Converse(
                instructions="be kind",
                facts={"street": "Elm Street"},
                answers=(Reply(intent="place", ask=("where are you",), say="at {street}"),),
            ),
            Gather(prompt="press one", branches={"1": "demo"}, otherwise="demo"),
        ),
        file="10.toml",
        line=7,
    ),
)


def all_messages() -> list[type[Message]]:
    """The whole gateway's. (A dataclass with slots is a second class beside the one it was made of.)"""
    for package in ("ipc", "line", "rtp", "run", "hall", "front"):
        folder = Path(gateway.__file__).parent / package
        for module in pkgutil.iter_modules([str(folder)], f"gateway.{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(kind: type[Message]) -> Iterator[type[Message]]:
        for sub in kind.__subclasses__():
            yield sub
            yield from below(sub)

    found = {kind for kind in below(Message) if kind.__module__.startswith("gateway.")} - {Tell, Ask}
    real = [kind for kind in found if getattr(inspect.getmodule(kind), kind.__name__, None) is kind]
    return sorted(real, key=lambda kind: kind.wire)


MESSAGES = all_messages()


def loose_fields(hint: Any, where: str) -> Iterator[str]:
    """The places below `hint` that do not say what they hold, or can be changed."""
    if hint in LOOSE:
        yield f"{where} is {hint}"
    elif is_dataclass(hint):
        assert isinstance(hint, type)
        if not hint.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            yield f"{where}: {hint.__name__} is not frozen"
        hints = get_type_hints(hint)
        for field in fields(hint):
            yield from loose_fields(hints[field.name], f"{where}.{field.name}")
    elif get_origin(hint) is not Literal:
        for inner in get_args(hint):
            if inner is not Ellipsis:
                yield from loose_fields(inner, where)


def ids(kind: type[Message]) -> str:
    return kind.__name__


@pytest.mark.parametrize("kind", MESSAGES, ids=ids)
def test_a_message_says_what_each_of_its_fields_holds(kind: type[Message]) -> None:
    assert list(loose_fields(kind, kind.__name__)) == []
    assert list(loose_fields(answer_type(kind), f"the answer to {kind.__name__}")) == []
    assert issubclass(kind, Ask) or answer_type(kind) is type(None)


def test_the_walk_finds_what_is_loose() -> None:
    @dataclass
    class Open:
        data: Any

    hints = [dict[str, Any], tuple[dict, ...], Open, list, Any, str | list[Any]]  # type: ignore[type-arg]
    assert all(list(loose_fields(hint, "x")) for hint in hints)
    assert list(loose_fields(Open, "x")) == ["x: Open is not frozen", "x.data is typing.Any"]


def test_the_walk_finds_the_messages() -> None:
    assert {Hello, TickHello, CallOffer, CallStarted, ShowCaller, Health} <= set(MESSAGES)
    assert len(MESSAGES) > 30


def test_no_two_messages_have_one_name() -> None:
    assert len({kind.wire for kind in MESSAGES}) == len({kind.__name__ for kind in MESSAGES}) == len(MESSAGES)


# ── what goes in comes out ───────────────────────────────────────────────────────────────────────────────

some.register_type_strategy(float, some.floats(allow_nan=False, allow_infinity=False))
some.register_type_strategy(
    CallEnding, some.builds(CallEnding, some.sampled_from(End), some.text(max_size=200))
)
some.register_type_strategy(Route, some.sampled_from(ROUTES))
some.register_type_strategy(
    CallOffer, some.builds(CallOffer, routes=some.lists(some.from_type(Route), min_size=1).map(tuple))
)


def values(hint: Any) -> some.SearchStrategy[Any]:
    return some.none() if hint is type(None) else some.from_type(hint)


@pytest.mark.parametrize("kind", MESSAGES, ids=ids)
@given(data=some.data())
def test_a_message_comes_out_as_it_went_in(kind: type[Message], data: some.DataObject) -> None:
    message = data.draw(values(kind))
    said = codec.unpacked(envelope.told(message))
    assert envelope.name_of(said) == kind.wire
    assert envelope.read(kind, said) == message


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if issubclass(kind, Ask)], ids=ids)
@given(data=some.data())
def test_an_answer_comes_out_as_it_went_in(kind: type[Message], data: some.DataObject) -> None:
    answer = data.draw(values(answer_type(kind)))
    said = codec.unpacked(envelope.answered(7, kind, answer))
    assert said["answer"] == 7
    assert codec.load(answer_type(kind), said["result"], "it") == answer


def test_what_is_too_large_is_neither_sent_nor_awaited() -> None:
    with pytest.raises(RpcError, match="larger than"):
        framed(bytes(MAX_MESSAGE + 1))
    head = framed(b"")[:0] + (MAX_MESSAGE + 1).to_bytes(4, "big")
    with pytest.raises(RpcError, match="larger than"):
        length_of(head)


# ── what is not a message ───────────────────────────────────────────────────────────────────────────────────

STARTED = {"call_id": "c", "call": 1, "slot": 0, "codec": None, "resumed": False, "confirmed": True}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"call": "1"}, "call.started, field call: expected a whole number, got text"),
        ({"call": True}, "call.started, field call: expected a whole number, got true or false"),
        ({"call": 1.0}, "call.started, field call: expected a whole number, got a number"),
        ({"resumed": 0}, "call.started, field resumed: expected true or false, got a whole number"),
        ({"codec": 5}, "call.started, field codec: expected text, got a whole number"),
        ({"call_id": None}, "call.started, field call_id: expected text, got null"),
        ({"more": 1}, "call.started, field more: nobody here knows it"),
        ({"slot": ...}, "call.started, field slot: it is missing"),
    ],
)
def test_a_wrong_field_is_named_with_what_came(change: dict[str, Any], why: str) -> None:
    table = {name: value for name, value in (STARTED | change).items() if value is not ...}
    with pytest.raises(RpcError) as error:
        codec.from_json(CallStarted, table, CallStarted.wire)
    assert str(error.value) == why


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"kind": "dance"}, "show, field event.kind: expected one of .*'state'.*, got 'dance'"),
        ({"state": "held"}, "show, field event.kind: it is missing"),
        ({"kind": "state"}, "show, field event.state: it is missing"),
        ({"kind": "latency", "turn": 1, "whole": "x"}, "show, field event"),
        ([], "show, field event: expected an object, got an array"),
    ],
)
def test_an_event_is_one_of_its_kinds(event: object, why: str) -> None:
    with pytest.raises(RpcError, match=why):
        codec.from_json(ShowCaller, {"call_id": "c", "event": event}, "show")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"routes": [{}]}, "routes.0: it is not a Route"),
        ({"routes": [{"do": [{"verb": "dance"}]}]}, "routes.0: it is not a Route"),
        ({"routes": 5}, "routes: expected an array"),
        ({"targets": {"desk": 5}}, "targets.desk: expected text"),
        ({"facts": {"caller": "x"}}, "facts.called: it is missing"),
        ({"at": "now"}, "at: expected a number"),
    ],
)
def test_a_wrong_field_deep_inside_is_named_too(change: dict[str, Any], where: str) -> None:
    offer = CallOffer("c", CallFacts("a", "b", "", "::1", "udp"), ROUTES, {}, 1, 1.0, "a secret")
    table = codec.to_json(CallOffer, offer) | change
    with pytest.raises(RpcError, match=f"call.offered, field {where}") as error:
        codec.from_json(CallOffer, table, CallOffer.wire)
    assert "secret" not in str(error.value)


def test_an_offer_has_a_route() -> None:
    offer = CallOffer("c", CallFacts("a", "b", "", "::1", "udp"), ROUTES, {}, 1, 1.0)
    table = codec.to_json(CallOffer, offer) | {"routes": []}
    with pytest.raises(RpcError, match=r"call\.offered: a call needs a route"):
        codec.from_json(CallOffer, table, CallOffer.wire)
    assert offer.route is ROUTES[0]
    assert offer.route_named("open") is ROUTES[1]


def test_secrets_are_not_in_what_is_printed_of_a_message() -> None:
    offer = CallOffer("c", CallFacts("a", "b", "", "::1", "udp"), ROUTES, {}, 1, 1.0, "a secret")
    assert "secret" not in repr(offer)
    assert "secret" not in repr(Hello("line", "n0", "secret"))


def test_a_field_that_is_none_by_default_is_left_out_and_one_that_must_be_said_is_not() -> None:
    assert codec.to_json(ShownState, ShownState("held")) == {"state": "held", "kind": "state"}
    assert codec.to_json(CallStarted, CallStarted("c", 1, 0, None, True, True))["codec"] is None
    offer = CallOffer("c", CallFacts("a", "b", "", "::1", "udp"), ROUTES, {}, 1, 1.0, "a secret")
    assert "grant" not in codec.to_json(CallOffer, replace(offer, grant=None))


def test_types_that_no_field_may_have_are_found_when_the_first_message_is_made() -> None:
    for hint in (Any, dict, dict[int, str], tuple[int, str], list[int], str | int, types.SimpleNamespace):
        with pytest.raises(TypeError, match="no message can carry"):
            codec.to_json(hint, None)


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("hint", "value", "wrong"),
    [
        (bytes, b"\x00\xff", "no base64!"),
        (Path, Path("/a/b"), 5),
        (Colour, Colour.RED, "blue"),
        (Literal[1, "x"], "x", True),
        (dict[str, tuple[float, ...]], {"a": (1.0, 2.0)}, {"a": [None]}),
        (type(None), None, 0),
    ],
)
def test_other_types(hint: Any, value: Any, wrong: object) -> None:
    table = codec.unpacked(codec.packed({"it": codec.to_json(hint, value)}))["it"]
    assert codec.load(hint, table, "it") == value
    with pytest.raises(RpcError, match=r"^it"):
        codec.load(hint, wrong, "it")


def test_a_whole_number_is_taken_where_a_number_is_meant() -> None:
    read = codec.load(float, 3, "it")
    assert (read, type(read)) == (3.0, float)


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"5", b"\xff", b"[" * 200_000])
def test_what_is_not_an_object_is_not_a_message(body: bytes) -> None:
    with pytest.raises(RpcError):
        codec.unpacked(body)


# ── hello ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_peer_of_another_version_is_refused_and_both_are_named() -> None:
    said = codec.unpacked(envelope.told(TickHello("n0", 8_000, "token", version="0.0.9")))
    with pytest.raises(OtherVersion, match=rf"n0 is of version 0\.0\.9, this process of {model.__version__}"):
        admitted(TickHello, said, "token")
    with pytest.raises(RpcError, match="token") as refusal:
        admitted(TickHello, said, "another")
    assert not isinstance(refusal.value, OtherVersion), "a stranger is told nothing"


def test_who_says_hello_is_of_this_version() -> None:
    hello = Hello("front", "front", "token")
    assert admitted(Hello, codec.unpacked(envelope.told(hello)), "token") == hello
    assert hello.version == model.__version__


def test_a_hello_must_come_first_and_be_the_right_one() -> None:
    for message in (KeyPressed("c", "1", "event"), TickHello("n0", 8_000, "token")):
        with pytest.raises(RpcError, match="the first message must be hello"):
            admitted(Hello, codec.unpacked(envelope.told(message)), "token")
