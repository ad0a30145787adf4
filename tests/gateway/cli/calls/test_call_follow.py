"""`voicegate calls --follow`: what happens in calls, through a front that goes and comes back."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.calls.call_follow import followed, told_line
from gateway.cli.calls.calls_command import calls
from gateway.cli.house.house_client import HouseClient
from gateway.errors import VoicegateError
from gateway.store.sip_users import console_token
from tests.e2e.gateway_process import free_port
from tests.gateway.front.http.test_event_feed import Fed, fed
from tests.needs import HANGS_S

__all__ = ["fed"]


def house_of(fed: Fed, folder: Path) -> HouseClient:
    """With the console's token that the feed's app asks for."""
    return HouseClient(fed.url, console_token(folder))


async def test_events_are_followed_through_a_front_that_restarts(fed: Fed, tmp_path: Path) -> None:
    house = house_of(fed, tmp_path)
    seen: list[str] = []

    def follow() -> None:
        for event in itertools.islice(followed(house), 3):
            seen.append(event["call_id"])

    following = asyncio.create_task(asyncio.to_thread(follow))
    async with asyncio.timeout(HANGS_S):
        while not fed.feed.listening:  # noqa: ASYNC110  # it is in another thread
            await asyncio.sleep(0.01)
        await fed.calls("c1")
        while seen != ["c1"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        fed.feed.close()
        while fed.feed.listening:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await fed.calls("c2")
        fed.feed._over.clear()  # another front, on the same file
        await fed.calls("c3")
        await following
    assert seen == ["c1", "c2", "c3"]


async def test_one_call_is_told_from_its_beginning(fed: Fed, tmp_path: Path) -> None:
    house = house_of(fed, tmp_path)
    await fed.calls("c1", "c2")
    event = await asyncio.to_thread(lambda: next(followed(house, "c2")))
    assert event["call_id"] == "c2"


def test_without_a_gateway_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.calls.call_follow.AWAY_S", 0.0)
    with pytest.raises(VoicegateError, match="no gateway answers"):
        next(followed(HouseClient(f"http://127.0.0.1:{free_port()}", "a token")))


def test_a_line_is_one_line_and_harms_no_terminal() -> None:
    data = {"caller": "\x1b[2Jbob\nx", "route": "demo"}
    line = told_line({"type": "call.offered", "at": 5.0, "call_id": "c1", "data": data})
    assert line.isprintable()
    assert "call.offered" in line
    assert "route=demo" in line


@pytest.mark.usefixtures("own_house")
def test_it_takes_no_filter_of_the_list() -> None:
    result = CliRunner().invoke(calls, ["--follow", "--csv"])
    assert result.exit_code == 2
    assert "--json alone" in result.output
