"""What becomes of the caller's sound."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import structlog

from gateway.hall.calls.call_ear import CallEar
from gateway.hall.dialogue.speech import Speech
from gateway.hall.media.audio import Floats
from gateway.hall.parts.inbox import CallerTurn, Event, Inbox
from gateway.hall.parts.playout import Item, Playout
from model.api import EarlyHearing

FRAME_S = 0.02


class Engine:
    """What the ear uses of `Speech`."""

    def __init__(self) -> None:
        self.appended_s = 0.0
        self.cleared = 0
        self.early: EarlyHearing | None = None
        self.knows_asides = False
        self.wants_words = False

    def append(self, sound: Floats) -> None:
        self.appended_s += len(sound) / 24_000

    def clear(self) -> None:
        self.cleared += 1


class Clocks:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Scene:
    """An ear and what it reaches. A caller who speaks is judged to, frame by frame."""

    def __init__(self) -> None:
        self.playout = Playout(0.0)
        self.engine = Engine()
        self.clocks = Clocks()
        self.inbox = Inbox(self.playout, structlog.get_logger())
        self.ear = CallEar(self.playout, cast(Speech, self.engine), self.inbox, clocks=self.clocks)

    def talk(self) -> None:
        """We begin to say something that nobody plays."""
        self.playout.put(Item("ours"), np.zeros(24_000, np.float32))

    def hear(self, seconds: float, judged: float, *, sending: bool = True) -> None:
        for _ in range(round(seconds / FRAME_S)):
            self.clocks.now += FRAME_S
            frame = np.full(480, judged / 10, np.float32)
            self.ear.hear(frame, judged, self.clocks.now, sending=sending)

    async def events(self) -> list[str]:
        found: list[Event] = []
        while (event := await self.inbox.next(0.0)) is not None:
            found.append(event)
        return [event.event.name for event in found if isinstance(event, CallerTurn)]


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_a_turn_goes_to_the_engine_while_somebody_listens(scene: Scene) -> None:
    scene.ear.listen()
    scene.hear(1.0, 0.9)
    scene.hear(0.6, 0.0)
    assert await scene.events() == ["ONSET", "SPEECH", "END"]
    assert scene.engine.appended_s > 1.0


async def test_nobody_listens_at_first_or_any_more(scene: Scene) -> None:
    for _ in range(2):
        scene.hear(1.0, 0.9)
        scene.hear(0.6, 0.0)
        assert await scene.events() == []
        scene.ear.listen()
        scene.ear.ignore()
    assert scene.engine.appended_s == 0


async def test_a_turn_that_began_when_nobody_listened_is_not_heeded_in_its_middle(scene: Scene) -> None:
    scene.hear(0.5, 0.9)
    scene.ear.listen()
    scene.hear(0.5, 0.9)
    scene.hear(0.6, 0.0)
    assert await scene.events() == []


async def test_who_holds_the_floor_is_not_interrupted(scene: Scene) -> None:
    scene.ear.listen()
    scene.ear.hold_floor()
    scene.talk()
    scene.hear(1.0, 0.9)
    scene.hear(0.6, 0.0)
    assert await scene.events() == []
    scene.ear.yield_floor()
    scene.hear(1.0, 0.9)
    assert await scene.events() == ["ONSET", "SPEECH"]


async def test_a_caller_who_waits_for_the_floor_is_heeded(scene: Scene) -> None:
    scene.ear.listen()
    scene.ear.hold_floor()
    scene.hear(1.0, 0.9)
    assert await scene.events() == ["ONSET", "SPEECH"], "we said nothing"


async def test_a_tap_takes_every_frame_until_it_is_closed(scene: Scene) -> None:
    frames: list[Floats | None] = []
    with scene.ear.tap(frames.append):
        assert scene.ear.tapped
        scene.hear(0.1, 0.0)
        scene.hear(0.1, 0.0, sending=False)
    scene.hear(0.1, 0.0)
    assert len(frames) == 10
    assert not scene.ear.tapped


async def test_silence_counts_from_the_last_sound_of_either_side(scene: Scene) -> None:
    scene.hear(1.0, 0.0)
    assert scene.clocks.now - scene.ear.last_sound == pytest.approx(1.0)
    scene.hear(0.5, 0.9)
    spoke = scene.clocks.now
    scene.hear(1.0, 0.0)
    assert spoke <= scene.ear.last_sound < spoke + 0.4, "the turn's end"
    scene.talk()
    scene.hear(1.0, 0.0)
    assert scene.ear.last_sound == scene.clocks.now
    scene.ear.restart_silence()
    assert scene.ear.last_sound == scene.clocks.now


async def test_on_hold_nothing_is_heard_and_what_was_begun_is_forgotten(scene: Scene) -> None:
    scene.ear.listen()
    scene.hear(0.5, 0.9)
    scene.ear.forget_turn()
    scene.hear(5.0, 0.9, sending=False)
    assert scene.engine.cleared == 1
    assert await scene.events() == ["ONSET", "SPEECH"]
    assert scene.ear.last_sound == scene.clocks.now, "a held caller is not silent"
