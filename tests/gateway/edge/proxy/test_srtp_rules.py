"""Whether a call's sound may, must or must not be encrypted, as the edge enforces it."""

from __future__ import annotations

import pytest

from gateway.edge.doors.srtp_policy import SrtpPolicy
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sdes import CryptoLine, SrtpRule
from gateway.ipc.line_signature import signature
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.doors.test_digest import credentials, ha1
from tests.gateway.edge.peers import ANSWER, BOOT, OFFER, WEB_OFFER

SUITE = "AES_CM_128_HMAC_SHA1_80"


def crypto() -> str:
    return f"{CryptoLine(1, SUITE, bytes(range(30)))}\r\n"


def savp(offer: str = OFFER) -> str:
    return offer.replace("RTP/AVP", "RTP/SAVP") + crypto()


@pytest.mark.parametrize(
    ("house", "over_plain", "offer", "status", "reason"),
    [
        ("required", True, OFFER, 488, "the sound must be encrypted here; RTP/SAVP with a=crypto, please"),
        ("required", False, savp(), 488, "the sound must be encrypted here, and its keys come over TLS only"),
        ("required", False, "", 488, "the sound must be encrypted here, and its keys come over TLS only"),
        ("required", False, WEB_OFFER, 488, "the sound must be encrypted here, and its keys come over TLS"),
        (
            "optional",
            False,
            savp(),
            488,
            "the offer is encrypted only (SRTP), for which SIP must come over TLS",
        ),
        ("off", True, savp(), 488, "the offer is encrypted only (SRTP), for which SIP must come over TLS"),
        ("optional", True, OFFER.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF"), 488, "the offer is a browser's"),
        ("off", True, OFFER.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF"), 488, "the offer is a browser's"),
        ("required", True, savp(), 200, ""),
        ("required", True, OFFER + crypto(), 200, ""),
        ("optional", True, savp(), 200, ""),
        ("optional", True, OFFER, 200, ""),
        ("optional", False, OFFER + crypto(), 200, ""),
        ("off", True, OFFER + crypto(), 200, ""),
    ],
)
async def test_an_offer_is_taken_or_refused_by_the_rule(
    bare: Exchange, house: SrtpRule, over_plain: bool, offer: str, status: int, reason: str
) -> None:
    await bare.edge(srtp=SrtpPolicy(house, over_plain))
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", offer)
    if status == 200:
        invite = await line.invited()
        rule = house if over_plain else "off"
        assert invite["x-vg-srtp"] == rule
        assert invite["x-vg-auth"] == signature(BOOT, invite["x-vg-call"], caller.call_id, rule)
        assert ("inline:" in invite.body) == ("inline:" in offer and rule != "off")
    else:
        refusal = await caller.next(status)
        assert refusal["reason"].startswith(f'SIP;cause=488;text="{reason}')


def test_a_user_and_a_trunk_may_have_rules_of_their_own() -> None:
    def of_user(user: str) -> SrtpRule | None:
        return "required" if user == "alice" else None

    policy = SrtpPolicy("off", True, of_user=of_user, of_trunk=lambda name: "optional")
    assert [policy.rule(), policy.rule("bob"), policy.rule("alice"), policy.rule("alice", "carrier")] == [
        "off",
        "off",
        "required",
        "optional",
    ]


async def test_who_logged_in_has_the_rule_of_that_user(bare: Exchange) -> None:
    policy = SrtpPolicy("off", True, of_user={"alice": "required"}.get)
    await bare.edge(ha1=ha1, srtp=policy)
    line, caller = await bare.line(), await bare.caller()
    for offer, status in ((OFFER, 488), (savp(), 100)):
        caller.send("INVITE", offer)
        challenge = (await caller.next(401))["www-authenticate"]
        caller.send("ACK", branch=caller.branch)
        caller.send("INVITE", offer, f"Authorization: {credentials(challenge)}")
        await caller.next(status)
    assert (await line.invited())["x-vg-srtp"] == "required"


@pytest.mark.parametrize(
    ("transport", "rule"),
    [("tls", "optional"), ("wss", "optional"), ("udp", "off"), ("tcp", "off"), ("ws", "off")],
)
def test_keys_count_where_nobody_reads_along(transport: str, rule: str) -> None:
    policy, flow = SrtpPolicy("optional"), Flow(transport, "192.0.2.1", 5061, None)
    assert policy.over("optional", flow) == rule
    assert bool(policy.barred("required", flow)) == (rule == "off")
    assert policy.over("required", flow) == "required"
    assert not policy.barred("optional", flow)


async def test_what_must_be_encrypted_stays_so_in_the_call(bare: Exchange) -> None:
    await bare.edge(srtp=SrtpPolicy("required", True))
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", savp())
    line.reply(await line.invited(), 200, body=ANSWER + crypto())
    answer = await caller.next(200)
    assert "inline:" in answer.body
    caller.learn(answer)
    caller.send("ACK")
    await line.next(method="ACK")
    caller.send("INVITE", OFFER)
    assert "must be encrypted" in (await caller.next(488))["reason"]
    caller.send("ACK")
    caller.send("INVITE", savp())
    assert "inline:" in (await line.invited()).body
    line.reply(line.invite, 200, body=ANSWER + crypto())
    await caller.next(200)


async def test_a_call_that_moved_to_the_clear_hears_no_keys(bare: Exchange) -> None:
    """Its line may still write them: neither an answer nor an offer of ours takes them there."""
    edge = await bare.edge(srtp=SrtpPolicy("optional", True))
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", savp())
    line.reply(await line.invited(), 200, body=ANSWER + crypto())
    caller.learn(await caller.next(200))
    caller.send("ACK")
    await line.next(method="ACK")
    object.__setattr__(edge.config, "srtp", SrtpPolicy("optional"))
    line.send("INVITE", OFFER + crypto())
    ours = await caller.next(method="INVITE")
    assert "crypto" not in ours.body
    caller.reply(ours, 200, body=OFFER + crypto())
    assert "crypto" not in (await line.next(200, "INVITE")).body
    caller.send("INVITE", OFFER + crypto())
    assert "crypto" not in (await line.invited()).body
    line.reply(line.invite, 200, body=ANSWER + crypto())
    assert "crypto" not in (await caller.next(200)).body
