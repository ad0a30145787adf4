"""Trunks change while connections are open: what was opened to them before is judged by what they are now."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.certificate import Certificate
from gateway.edge.flows.transport import Flow
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER
from tests.gateway.edge.trunks.test_trunk_tls import PAI, Carriers, Far, caller, comes_as
from tests.needs import HANGS_S


@pytest.fixture
def carriers(tmp_path: Path) -> Carriers:
    return Carriers(tmp_path)


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.close()


async def opened(bare: Exchange, carriers: Carriers, far: Far) -> tuple[Edge, Trunk, Flow]:
    """An edge with a connection to its trunk, a server that wants a certificate of its authority."""
    port = await far.open(Certificate(*carriers.first.sign("127.0.0.1", to="server")), carriers.first)
    chain, key = carriers.first.sign("us.example", to="us")
    trunk = carriers.trunk(hosts=(TrunkHost("127.0.0.1", port),), certificate=chain, key=key, ping_s=0)
    edge = await carriers.edge(bare, trunk)
    (way,) = edge.trunks.known["first"].ways.all
    flow = await edge.trunks.connect(way)
    assert edge.trunks.of(flow) == "first"
    return edge, trunk, flow


async def ends(flow: Flow) -> None:
    async with asyncio.timeout(HANGS_S):
        while flow.open:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.001)


async def test_one_that_is_as_before_keeps_its_connection(
    bare: Exchange, carriers: Carriers, far: Far
) -> None:
    edge, trunk, flow = await opened(bare, carriers, far)
    edge.trunks.take([dataclasses.replace(trunk)])
    (way,) = edge.trunks.known["first"].ways.all
    assert await edge.trunks.connect(way) is flow
    assert edge.trunks.of(flow) == "first"


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts": (TrunkHost("192.0.2.1", 5061),)},
        {"shows": ("second.example",)},
        {"user": "u", "password": "p"},
        {"srtp": "required"},
        None,
    ],
    ids=["address", "name", "credentials", "sound", "gone"],
)
async def test_what_was_opened_to_one_that_changed_is_a_strangers_and_ends(
    bare: Exchange, carriers: Carriers, far: Far, changes: dict[str, object] | None
) -> None:
    edge, trunk, flow = await opened(bare, carriers, far)
    new = [] if changes is None else [dataclasses.replace(trunk, **changes)]  # type: ignore[arg-type]
    edge.trunks.take(new)
    assert edge.trunks.of(flow) is None
    await ends(flow)
    for one in edge.trunks.known.values():
        if one.ways.all[0].host == "127.0.0.1":
            (way,) = one.ways.all
            assert edge.trunks.of(await edge.trunks.connect(way)) == "first"


async def test_an_authority_that_was_replaced_does_not_hold_for_what_we_opened_either(
    bare: Exchange, carriers: Carriers, far: Far
) -> None:
    edge, _, flow = await opened(bare, carriers, far)
    carriers.first.ca.write_bytes(carriers.second.ca.read_bytes())
    edge.trunks.look()
    assert edge.trunks.of(flow) is None


async def test_a_connection_that_two_share_stays_for_the_other(bare: Exchange, carriers: Carriers) -> None:
    """They are at one address."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Trunk(name="one", hosts=(TrunkHost("127.0.0.1", port),), transport="tcp", ping_s=0)
    edge = await carriers.edge(bare, one, dataclasses.replace(one, name="two"))
    flows = {await edge.trunks.connect(known.ways.all[0]) for known in edge.trunks.known.values()}
    (flow,) = flows
    edge.trunks.take([one])
    assert flow.open
    edge.trunks.take([])
    await ends(flow)
    server.close()


async def test_a_peer_who_was_let_in_as_a_trunk_alone_has_to_go_with_it(
    bare: Exchange, carriers: Carriers
) -> None:
    """Where everybody else needs a certificate of the house's authority."""
    edge = await carriers.edge(
        bare, carriers.trunk(), clients="required", authorities=carriers.house.ca,
        client_authorities=frozenset({"a fingerprint"}),
    )  # fmt: skip
    trust = carriers.client(carriers.first.sign("first.example", to="trunk"))
    assert await comes_as(bare, trust) == "first"
    talks = bare.peers[-1]
    idle = await caller(bare, trust)
    idle.send("OPTIONS")
    await idle.next(200)
    edge.trunks.take([])
    await idle.gone()
    (dialog,) = edge._board.dialogs
    talks.send("OPTIONS")  # type: ignore[union-attr]
    await talks.next(200)  # its call is up
    edge._board.dialogs.remove(dialog)
    edge.trunks._close_unused()  # as each second
    await talks.gone()  # type: ignore[union-attr]


async def test_a_peer_whose_name_a_trunk_does_not_show_any_more_is_asked_for_a_password(
    bare: Exchange, carriers: Carriers
) -> None:
    edge = await carriers.edge(bare, carriers.trunk())
    who = await caller(bare, carriers.client(carriers.first.sign("first.example", to="trunk")))
    who.send("OPTIONS")
    await who.next(200)
    edge.trunks.take([carriers.trunk(shows=("other.example",))])
    who.send("INVITE", OFFER, PAI)
    await who.next(401)
