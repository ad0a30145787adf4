"""sipp calls the whole gateway in ways that it refuses or bears: late, large, too many, with a login."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.e2e.sipp_runs import (
    ACK,
    ANSWERED,
    BYE,
    REFUSED_ACK,
    THEIR_BYE,
    TRYING,
    Sipp,
    all_free,
    captured,
    do,
    free_slots,
    has,
    hop,
    how_they_ended,
    invite,
    never_acknowledged,
    part,
    pause,
    recv,
    sdp,
    speech_s,
    within,
)

pytestmark = pytest.mark.e2e


@pytest.mark.long("the other side of a call that a third party makes picks up after 12 s")
def test_who_dials_for_somebody_else_acknowledges_late(house: House, tmp_path: Path) -> None:
    """RFC 3725 flow I: an INVITE without an offer, and its ACK has the answer once the other side has one."""
    steps = [invite(""), ANSWERED, pause(12), within("ACK", 1, sdp(port="[media_port]")), pause(2.5), BYE]
    with captured(tmp_path, (call := Sipp(steps, tmp_path)).rtp_port) as heard:
        call.run(house)
        assert speech_s(heard().sound) > 1
    assert how_they_ended(house) == ["caller hung up"]


@pytest.mark.long("an answer may stay unacknowledged for 32 s")
def test_who_never_acknowledges_keeps_no_slot(house: House, tmp_path: Path) -> None:
    all_free(house)
    before = never_acknowledged(house)
    bye = THEIR_BYE.replace("30000", "50000")
    silent = Sipp([invite(), ANSWERED, bye], tmp_path, calls=3, options=["-timeout", "60"]).start(house)
    house.wait_for("three held slots", lambda: free_slots(house) == 5)
    assert place_call(house.uri, duration_s=1).answered, "others are served"
    silent.finish()  # each was told by a BYE
    all_free(house, 9.0)
    assert never_acknowledged(house) == before + 3


def test_a_transfer_is_refused_and_the_call_goes_on(house: House, tmp_path: Path) -> None:
    refer = within("REFER", 2, extra="Refer-To: <sip:victim@127.0.0.1:9>")
    again = within("INVITE", 3, sdp(version=2)) + TRYING + recv(200) + within("ACK", 3)
    Sipp([invite(), ANSWERED, ACK, refer, recv(403), again, BYE], tmp_path).run(house)


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_long_invite_harms_nobody(house: House, tmp_path: Path, transport: str) -> None:
    padded = invite(extra="X-Padding: " + "p" * 6000)
    Sipp([padded, ANSWERED, ACK, pause(0.5), BYE], tmp_path, transport).run(house)
    talkative = invite(sdp() + "".join(f"\n      a=padding:{n}-{'p' * 90}" for n in range(150)))
    Sipp([talkative, ANSWERED, ACK, pause(0.5), BYE], tmp_path, transport).run(house)
    vast = invite(sdp() + "".join(f"\n      a=padding:{n}-{'p' * 90}" for n in range(400)))
    Sipp([vast, TRYING, recv(513), REFUSED_ACK, pause(0.1)], tmp_path, transport).run(house)
    assert place_call(house.uri, duration_s=0.5).answered
    assert house.get("/readyz")["ready"]


def test_codecs_we_do_not_have_are_488(house: House, tmp_path: Path) -> None:
    Sipp([invite(sdp("3")), TRYING, recv(488), REFUSED_ACK, pause(0.1)], tmp_path).run(house)


def test_options_and_unknown_requests_are_answered(house: House, tmp_path: Path) -> None:
    options = part("hop", method="OPTIONS", cseq=1, to="").replace("<send>", '<send retrans="500">')
    register = part("hop", method="REGISTER", cseq=2, to="").replace("<send>", '<send retrans="500">')
    Sipp([options, recv(200, has("INVITE")), register, recv(401)], tmp_path).run(house)


def test_twenty_calls_too_many_are_told_when_to_try_again(house: House, tmp_path: Path) -> None:
    all_free(house)
    busy = recv(503, has("Retry-After: [0-9]+"), options='optional="true" next="busy"')
    steps = [
        *(invite(), '  <recv response="100" optional="true"/>\n', busy, recv(200, options='rrs="true"')),
        *(ACK, do('<log message="answered"/>'), pause(5), BYE),
        *('  <nop next="end"/>\n', '  <label id="busy"/>\n', REFUSED_ACK, do('<log message="busy"/>')),
        *('  <label id="end"/>\n', pause(0.1)),
    ]
    said = Sipp(steps, tmp_path, calls=28).run(house)
    assert (said.count("answered"), said.count("busy")) == (8, 20)
    all_free(house)


def with_user(house: House, folder: Path) -> None:
    (folder / "password").write_text("correct-horse\n")
    add = [sys.executable, "-m", "gateway.cli", "sip", "user", "add", "alice", "--password-from"]
    subprocess.run([*add, folder / "password"], check=True, env=house.environ)


def test_a_gateway_with_users_takes_nobody_else(own_house: Callable[..., House], tmp_path: Path) -> None:
    house = own_house(sip_auth="on")
    with_user(house, tmp_path)
    ack = part("hop", method="ACK", cseq=1, to="[peer_tag_param]")
    challenged = [invite(), TRYING, recv(401, options='auth="true"'), ack]
    again = invite(extra="[authentication username=alice password=$]", cseq=2)
    right = again.replace("=$]", "=correct-horse]")
    wrong = again.replace("=$]", "=battery-staple]")
    Sipp([*challenged, right, ANSWERED, within("ACK", 2), pause(1), BYE], tmp_path).run(house)
    Sipp([*challenged, wrong, TRYING, recv(401), hop("ACK", 2, "[peer_tag_param]")], tmp_path).run(house)
    assert len(house.calls()) == 1
    allowed = place_call(house.uri, user="alice", password="correct-horse", duration_s=1)
    refused = place_call(house.uri, user="alice", password="battery-staple", duration_s=1)
    assert allowed.answered
    assert not refused.answered
    assert "401" in refused.ended


def test_a_gateway_may_ask_for_sha_256(own_house: Callable[..., House], tmp_path: Path) -> None:
    house = own_house(sip_auth="on", sip_digest="sha-256", wide_calls=0, web_lines=0)
    with_user(house, tmp_path)
    assert place_call(house.uri, user="alice", password="correct-horse", duration_s=0.5).answered
    assert "401" in place_call(house.uri, user="alice", password="battery-staple").ended


def test_a_new_front_still_ends_the_calls_of_the_old_one(
    own_house: Callable[..., House], tmp_path: Path
) -> None:
    house = own_house(wide_calls=0, web_lines=0)
    call = Sipp([invite(), ANSWERED, ACK, THEIR_BYE], tmp_path).start(house)
    house.wait_for("the call", lambda: any(one["state"] == "confirmed" for one in house.calls()))
    house.kill("front")
    house.wait_for("a new front", house.ready, 15)
    path = f"{house.url}/api/calls/{house.calls()[0]['call_id']}"
    asked = urllib.request.Request(path, headers=house.bearer, method="DELETE")
    with urllib.request.urlopen(asked, timeout=5) as answer:
        assert answer.status < 300
    call.finish()  # its BYE came, from an edge that never saw its INVITE
    house.wait_for("its slot", lambda: free_slots(house) == 4)
