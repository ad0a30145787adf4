"""Trunks change while connections are open: what was opened to them before is judged by what they are now."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class Keeper(asyncio.DatagramProtocol):
    """A registrar that takes whoever comes; `asked` are the seconds of each REGISTER."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        text = data.decode()
        if not text.startswith("REGISTER"):
            return
        self.asked.append(int(text.partition("Expires: ")[2].partition("\r\n")[0]))
        kept = [line for line in text.split("\r\n") if re.match("(Via|From|To|Call-ID|CSeq):", line)]
        answer = ["SIP/2.0 200 OK", *kept, f"Expires: {self.asked[-1]}", "Content-Length: 0", "", ""]
        self.transport.sendto("\r\n".join(answer).encode(), addr)
        self.came.set()

    async def has(self, count: int) -> list[int]:
        async with asyncio.timeout(HANGS_S):
            while len(self.asked) < count:
                self.came.clear()
                await self.came.wait()
        return self.asked


@pytest.mark.parametrize(
    ("changes", "says"),
    [(None, [600, 0]), ({"register": False}, [600, 0]), ({"user": "other"}, [600, 0]), ({"calls": 9}, [600])],
    ids=["gone", "registers no more", "another user", "as before"],
)
async def test_a_trunk_that_is_gone_is_told_that_we_are_not_there(
    bare: Exchange, changes: dict[str, Any] | None, says: list[int]
) -> None:
    """Else it would send us calls until our registration runs out."""
    loop = asyncio.get_running_loop()
    transport, keeper = await loop.create_datagram_endpoint(Keeper, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    trunk = Trunk(
        name="t", hosts=(TrunkHost("127.0.0.1", port),), user="u", register=True, ping_s=0, expires_s=600
    )
    bare.trunks = (trunk,)
    edge = await bare.edge()
    await edge.trunks.registrations["t"].renew()
    assert edge.trunks.registrations["t"].registered
    edge.trunks.take([] if changes is None else [dataclasses.replace(trunk, **changes)])
    assert await keeper.has(len(says)) == says
    async with asyncio.timeout(HANGS_S):
        while edge.trunks._ending:  # noqa: ASYNC110  # nobody waits for it
            await asyncio.sleep(0.001)
    assert keeper.asked == says
    edge.trunks._close_unused()
    assert edge.trunks._former == []
    transport.close()
