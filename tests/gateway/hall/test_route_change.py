"""A grant is for one voice, purpose, route, language and call: whoever changes the route needs another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from consent.grants.scope import Scope
from gateway.dialplan import Answer, Converse, Gather, Keep, Record, Route, Say
from gateway.hall import grants as grants_module
from gateway.hall.calls import call as call_module
from gateway.ipc.hall_messages import CallClosed, RenderPrompts, VoiceMuted
from tests.gateway.hall.virtual_hall import VOICE, WORD_S, EngineTalk, House, Phone

HOUSE_TIME = True

MENU = Gather(prompt="press one", branches={"1": "ads", "2": "demo"})
ADS = Route(
    name="ads",
    voice="jane",
    purpose="marketing",
    language="de",
    without_voice="hangup",
    do=(Answer(), Say(text="kaufen Sie jetzt"), Gather(prompt="und nun", branches={"2": "demo"})),
)
TALK = Converse(instructions="x", greeting="guten Tag", silence_s=110.0)
HOLD = "Einen Moment, bitte."
"""What `ADS` has no text of its own for."""


def scope_of(house: House, session: EngineTalk) -> Scope:
    return house.consent.verify(session.grant).scope


def jtis(house: House) -> list[str]:
    """Of the grants by which the engine was asked for sessions."""
    return [house.consent.verify(session.grant).jti for session in house.engine.sessions]


async def in_the_menu(house: House, ads: Route = ADS, **offer: object) -> Phone:
    phone = await house.ring(Answer(), MENU, others=(ads,), **offer)  # type: ignore[arg-type]
    await house.until(lambda: phone.heard_s() > 0.5)
    return phone


async def render_prompts(house: House, *texts: str) -> None:
    """As the front has it done when a hall comes."""
    await house.hall.render_prompts(
        house.front,  # type: ignore[arg-type]
        RenderPrompts(texts, house.consent.token("prompts")),
    )
    await house.until(lambda: not house.hall.prompts.missing(list(texts)))
    house.engine.sessions.clear()


# ── whose voice, by which grant ──────────────────────────────────────────────────────────────────────────


async def test_another_route_is_spoken_in_its_own_voice_by_a_grant_of_its_own(house: House) -> None:
    phone = await in_the_menu(house)
    await house.press(phone, "1")
    await house.says("kaufen Sie jetzt")
    menu, ads = house.engine.sessions
    assert menu.said == ["press one"], "the session of the first voice says nothing of the second route"
    assert ads.said == ["kaufen Sie jetzt"]
    assert scope_of(house, menu) == Scope("heart", "support", "demo", "en", phone.call_id)
    assert scope_of(house, ads) == Scope("jane", "marketing", "ads", "de", phone.call_id)
    assert menu.closed
    (event,) = house.events(phone, "route")
    assert (event["route"], event["voice"], event["purpose"]) == ("ads", "jane", "marketing")
    assert house.memory.hashes[f"vg:call:{phone.call_id}"]["route"] == "ads"


async def test_the_way_back_takes_a_new_grant_again(house: House) -> None:
    phone = await in_the_menu(house)
    for _ in range(2):
        await house.press(phone, "1")
        await house.until(lambda: house.engine.said[-1] == "und nun")
        await house.press(phone, "2")
        await house.until(lambda: house.engine.said[-1] == "press one")
    routes = [scope_of(house, session).dialplan for session in house.engine.sessions]
    assert routes == ["demo", "ads", "demo", "ads", "demo"]
    assert len(set(jtis(house))) == 5, "no grant is used twice"


@pytest.mark.parametrize(
    "other",
    [
        Route(name="ads"),
        Route(name="ads", purpose="marketing"),
        Route(name="ads", language="de"),
        Route(name="ads", voice="jane"),
    ],
    ids=["dialplan alone", "purpose", "language", "voice"],
)
async def test_each_part_of_a_scope_counts(house: House, other: Route) -> None:
    phone = await in_the_menu(house, replace(other, do=(Answer(), Say(text="here"))))
    await house.press(phone, "1")
    await house.says("here")
    assert [scope_of(house, session) for session in house.engine.sessions] == [
        Scope("heart", "support", "demo", "en", phone.call_id),
        other.scope(phone.call_id),
    ]
    assert len(set(jtis(house))) == 2


async def test_a_menu_that_leads_to_itself_keeps_its_grant(house: House) -> None:
    phone = await in_the_menu(house)
    await house.press(phone, "2")
    await house.until(lambda: house.engine.said == ["press one", "press one"])
    assert house.front.followed == []
    assert len(house.engine.sessions) == 1


@pytest.mark.parametrize("part", ["voice", "purpose", "dialplan", "language", "call_id"])
async def test_a_grant_for_anything_else_is_not_spoken_by(house: House, part: str) -> None:
    def other(call_id: str, route: Route) -> str:
        return house.consent.signed(replace(route.scope(call_id), **{part: "other"}), "jti-other")

    phone = await in_the_menu(house)
    house.front.gives = other
    await house.press(phone, "1")
    reason = "other_call" if part == "call_id" else "scope"
    assert await house.over(phone) == f"failed: the voice may not be used: {reason}"
    assert house.engine.said == ["press one"]
    assert house.front.told(VoiceMuted)[-1].reason == reason


async def test_the_stock_voice_may_not_stand_in_where_the_plan_does_not_let_it(house: House) -> None:
    phone = await in_the_menu(house)
    house.front.gives = lambda call_id, route: house.consent.signed(
        replace(route.scope(call_id), voice="heart"), "jti-stock"
    )
    await house.press(phone, "1")
    assert await house.over(phone) == "failed: the voice may not be used: scope"


async def test_the_first_grant_too_is_for_the_first_route(house: House) -> None:
    scope = Scope("heart", "marketing", "demo", "en", "call1")
    phone = await house.ring(Answer(), Say(text="hello"), grant=house.consent.signed(scope, "jti"))
    assert await house.over(phone) == "failed: the voice may not be used: scope"
    assert house.engine.sessions == []


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refused_voice_ends_the_call_where_the_plan_says_so(house: House) -> None:
    phone = await in_the_menu(house)
    house.front.without["jane"] = "purpose"
    await house.press(phone, "1")
    assert await house.over(phone) == "failed: the voice may not be used: purpose"
    assert house.engine.said == ["press one"]


async def test_or_the_stock_voice_says_it_by_a_grant_for_that_route(house: House) -> None:
    phone = await in_the_menu(house, replace(ADS, without_voice="stock"))
    house.front.without["jane"] = "revoked"
    await house.press(phone, "1")
    await house.says("kaufen Sie jetzt")
    assert scope_of(house, house.engine.sessions[-1]) == Scope(
        "heart", "marketing", "ads", "de", phone.call_id
    )
    (event,) = house.events(phone, "route")
    assert (event["voice"], event["grant_refused"]) == ("heart", "revoked")


async def test_a_voice_that_is_revoked_between_is_not_spoken_in(house: House) -> None:
    phone = await in_the_menu(house)
    await house.revoke("jane")
    assert not house.events(phone, "muted"), "it is not heard yet"
    await house.press(phone, "1")
    assert await house.over(phone) == "failed: the voice may not be used: revoked"
    assert house.engine.said == ["press one"]


# ── what is rendered ahead, and what comes late ──────────────────────────────────────────────────────────


async def test_what_was_rendered_for_the_first_route_is_not_heard_in_the_second(house: House) -> None:
    """A verb of a later version changes the route in the middle of what is said, as `gather` never does."""
    loud, soft = (VOICE * 0 + level for level in (0.5, 0.05))
    ticks = np.sign(np.sin(np.arange(len(VOICE))))
    house.engine.sounds = {"loud": np.tile(loud * ticks, 25), "soft": np.tile(soft * ticks, 25)}
    house.engine.leads = False
    talk = replace(TALK, greeting="loud loud loud")
    phone = await house.ring(Answer(), talk, others=(ADS,))
    call = house.call(phone)
    await house.until(lambda: phone.heard_s() > 0.5)
    assert call.playout.waiting_s > 3
    at = len(phone.heard)
    call.speech.say("loud")  # and one more that was asked for and not rendered
    await house.hall.grants.follow(call, ADS)
    call.speech.say("soft")
    await asyncio.sleep(1.0)
    assert max(phone.heard[at + 6 :]) < 0.2
    assert max(phone.heard[at + 6 :]) > 0.01


async def test_the_caller_s_sound_is_kept_as_the_present_route_has_it(house: House) -> None:
    phone = await in_the_menu(house, replace(ADS, keep=Keep(caller_audio=False)))
    assert house.call(phone).speech._memory.keeps_sound
    await house.press(phone, "1")
    await house.says("kaufen Sie jetzt")
    assert not house.call(phone).speech._memory.keeps_sound


async def test_what_was_heard_before_is_the_next_session_s_history(house: House) -> None:
    phone = await house.ring(Answer(), Say(text="one two"), MENU, others=(ADS,))
    await house.until(lambda: phone.heard_s() > 2.5 * WORD_S)
    await house.press(phone, "1")
    await house.says("kaufen Sie jetzt")
    (restored,) = house.engine.sessions[-1].told[1:2]
    assert restored[0] == "restore"
    assert [item["content"][0]["text"] for item in restored[1]] == ["one two"]


async def test_a_verb_that_changes_the_route_alone_is_not_heard(house: House) -> None:
    phone = await house.ring(Answer(), replace(TALK, greeting=" ".join(["word"] * 99)), others=(ADS,))
    call = house.call(phone)
    await house.until(lambda: phone.heard_s() > 0.5)
    at = len(phone.heard)
    call.leave_for(ADS)
    call.speech.say("kaufen")
    await asyncio.sleep(20.0)
    assert phone.heard_s(at + 3) == 0.0
    assert len(house.engine.sessions) == 1
    assert house.engine.sessions[0].closed


async def test_a_renewal_of_the_first_grant_that_comes_late_does_not_win(house: House) -> None:
    house.front.renews_after_s = 1.0
    talk = replace(ADS, do=(Answer(), TALK))
    phone = await house.ring(Answer(), TALK, others=(talk,))
    await house.says("guten Tag")
    call = house.call(phone)
    first = call.licence.grant
    assert first is not None
    await house.until(lambda: house.front.renewed, 40)
    await house.hall.grants.follow(call, talk)
    second = call.licence.grant
    assert second is not None
    await asyncio.sleep(5.0)
    assert call.licence.grant is second
    assert call.licence.muted is None
    house.hall.grants.use(call, first.token)  # should it come by another way
    assert call.licence.grant is second


async def test_even_the_same_route_s_former_grant_does_not_take_the_present_one_s_place(house: House) -> None:
    phone = await in_the_menu(house)
    call = house.call(phone)
    first, demo = call.licence.grant, call.route
    assert first is not None
    await house.hall.grants.follow(call, ADS)
    await house.hall.grants.follow(call, demo)
    third = call.licence.grant
    assert third is not None
    assert third.scope == first.scope
    house.hall.grants.use(call, first.token)
    assert call.licence.grant is third
    assert call.licence.muted == "replayed", "two grants of one call at once: something is wrong"


async def test_what_is_renewed_is_the_present_grant(house: House) -> None:
    phone = await house.ring(Answer(), MENU, others=(replace(ADS, do=(Answer(), TALK)),))
    await house.until(lambda: phone.heard_s() > 0.5)
    await house.press(phone, "1")
    await house.says("guten Tag")
    token = house.call(phone).licence.token
    await house.until(lambda: house.front.renewed, 40)
    assert house.front.renewed == [(phone.call_id, token)]
    await asyncio.sleep(70.0)
    renewed = {
        house.consent.claims(token or "", "voice-grant+jws")["jti"] for _, token in house.front.renewed
    }
    assert renewed == {f"jti-{phone.call_id}-2"}
    assert not house.events(phone, "muted")


# ── silence ──────────────────────────────────────────────────────────────────────────────────────────────


async def quiet_s(house: House, phone: Phone, change: Callable[[], object]) -> float:
    """How long the caller hears nothing at a change of the route."""
    at = len(phone.heard) + 4  # what was cut fades, and the line has some on its way
    change()
    await house.until(lambda: any(level > 0.01 for level in phone.heard[at:]))
    first = next(index for index, level in enumerate(phone.heard[at:]) if level > 0.01)
    return first * 0.02


async def test_the_second_route_is_heard_at_once(house: House) -> None:
    phone = await in_the_menu(house)
    assert await quiet_s(house, phone, lambda: asyncio.ensure_future(house.press(phone, "1"))) < 0.3
    assert not phone.shown


@pytest.mark.parametrize("slow", ["front", "engine"])
async def test_who_would_wait_longer_is_asked_for_a_moment_in_the_stock_voice(
    house: House, slow: str
) -> None:
    await render_prompts(house, HOLD)
    phone = await in_the_menu(house, transport="webrtc")
    if slow == "front":
        house.front.follows_after_s = 1.9
    else:
        house.engine.think_s = 3.0
    assert await quiet_s(house, phone, lambda: asyncio.ensure_future(house.press(phone, "1"))) <= 1.5
    await house.says("kaufen Sie jetzt")
    texts = [event.text for event in phone.shown if hasattr(event, "text")]
    assert HOLD in texts
    await house.until(lambda: house.engine.said[-1] == "und nun", 20)
    (spoken,) = [said.seconds for said in house.call(phone).spoken if said.jti == jtis(house)[-1]]
    assert spoken == pytest.approx(3 * WORD_S, abs=0.2), "what the stock voice said is not the grant's"


async def test_a_route_that_says_nothing_at_first_is_not_asked_to_wait(house: House) -> None:
    await render_prompts(house, HOLD)
    listens = Converse(instructions="x", silence_s=100.0)
    phone = await in_the_menu(house, replace(ADS, do=(Answer(), listens)))
    at = len(phone.heard) + 4
    await house.press(phone, "1")
    await asyncio.sleep(5.0)
    assert phone.heard_s(at) == 0.0


async def test_without_a_front_nothing_is_said_in_the_second_route(house: House) -> None:
    await render_prompts(house, HOLD)
    phone = await in_the_menu(house)
    house.front.away = True
    began = house.loop.time()
    await house.press(phone, "1")
    assert await house.over(phone) == "failed: the voice may not be used: none"
    assert house.loop.time() - began == pytest.approx(grants_module.FOLLOW_WITHIN_S, abs=0.3)
    assert house.engine.said == ["press one"]


async def test_a_caller_who_hangs_up_meanwhile_is_let_go(house: House) -> None:
    phone = await in_the_menu(house)
    house.front.follows_after_s = 1.9
    await house.press(phone, "1")
    await asyncio.sleep(call_module.HOLD_AFTER_S / 2)
    await house.hang_up(phone)
    await house.until(house.is_empty, 5.0)


# ── how long each spoke ──────────────────────────────────────────────────────────────────────────────────


async def test_each_grant_s_seconds_are_told_by_themselves(house: House) -> None:
    ads = replace(
        ADS, do=(Answer(), Say(text="kaufen Sie jetzt"), Gather(prompt="und", branches={"2": "demo"}))
    )
    menu = replace(MENU, branches={"1": "ads"})
    phone = await house.ring(Answer(), Say(text="one two"), menu, others=(ads,))
    await house.until(lambda: phone.heard_s() > 3.9 * WORD_S)
    await asyncio.sleep(0.5)
    await house.press(phone, "1")
    await house.until(lambda: phone.heard_s() > 7.9 * WORD_S)
    await asyncio.sleep(0.5)
    await house.hang_up(phone)
    await house.until(house.is_empty, 5.0)
    (closed,) = house.front.told(CallClosed)
    first, second = jtis(house)
    spoken = {said.jti: said.seconds for said in closed.spoken}
    assert spoken[first] == pytest.approx(4 * WORD_S, abs=0.15)
    assert spoken[second] == pytest.approx(4 * WORD_S, abs=0.15)
    (asked,) = house.front.followed
    assert {said.jti: said.seconds for said in asked.spoken} == {first: spoken[first]}
    whole_s = float(house.memory.hashes[f"vg:call:{phone.call_id}"]["spoken_s"])
    assert sum(spoken.values()) == pytest.approx(whole_s, abs=0.1)


async def test_a_beep_is_not_said_in_the_grant_s_voice(house: House) -> None:
    phone = await house.ring(Answer(), Record(announce="one", beep=True, max_s=1.0))
    await house.over(phone)
    (closed,) = house.front.told(CallClosed)
    (said,) = closed.spoken
    assert said.seconds == pytest.approx(WORD_S, abs=0.1)


async def test_a_renewal_tells_the_seconds_so_far(house: House) -> None:
    phone = await house.ring(Answer(), Say(text=" ".join(["word"] * 200)))
    await house.until(lambda: house.front.renewals, 40)
    (renewal,) = house.front.renewals
    (said,) = renewal.spoken
    assert said.jti == f"jti-{phone.call_id}"
    assert said.seconds == pytest.approx(phone.heard_s(), abs=0.3)


# ── a hall's death ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_is_taken_up_in_the_route_that_it_was_in(house: House) -> None:
    phone = await in_the_menu(house)
    await house.press(phone, "1")
    await house.until(lambda: house.engine.said[-1] == "und nun", 20)
    await house.hall_dies()
    before = jtis(house)[-1]
    line = house.lines["n0"]
    await house.hall._joined(line)  # type: ignore[arg-type]
    await house.hall._joined(house.front)  # type: ignore[arg-type]
    await line.start(phone, resumed=True)
    asked = len(house.engine.said)
    await house.until(lambda: len(house.engine.said) > asked)
    assert house.engine.said[asked] == "kaufen Sie jetzt"
    assert scope_of(house, house.engine.sessions[-1]) == ADS.scope(phone.call_id)
    assert jtis(house)[-1] != before
    await house.press(phone, "2")
    await house.until(lambda: house.engine.said[-1] == "press one", 20)
    assert scope_of(house, house.engine.sessions[-1]).dialplan == "demo"
