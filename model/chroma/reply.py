"""A reply under way: what the next frame of each needs, and one batched step for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from model.chroma.steps import POSITIONS, Steps, Turn

End = Literal["sound", "positions", "length", "failed"]
"""Why a reply is over: the model ended it, the backbone is full, it is as long as it may be, or an error."""


@dataclass(slots=True, eq=False)
class Reply:
    """`say` are words that are spoken instead of the thinker's own, the end of text included."""

    slot: int
    frames_at_most: int
    say: deque[int] | None = None
    words: list[int] = field(default_factory=list)
    frames: int = 0
    text_over: bool = False
    end: End | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """What one step brought to a reply. `word` came in with this frame; `codes` `(codebooks,)` are None
    once the sound is over; `pcm` `(frame,)` is the sound, on the model's device."""

    word: int | None = None
    codes: Tensor | None = None
    pcm: Tensor | None = None


def rows_of(slots: Sequence[int]) -> slice:
    """The run of slots that covers them."""
    return slice(min(slots), max(slots) + 1)


def perform(steps: Steps, replies: Sequence[Reply], *, sound: bool = True) -> list[Frame]:
    """One frame further, all at once; `end` is set where a reply is over. Each reply has its own slot."""
    going = []
    for reply in replies:
        if steps.slots.backbone.room(reply.slot) < _need(reply):
            reply.end = "positions"
        else:
            going.append(reply)
    if not going:
        return [Frame()] * len(replies)
    words = _words(steps, [reply for reply in going if _thinks(reply)])
    turns = {reply.slot: Turn.PAIR if reply.slot in words else Turn.SOUND for reply in going}
    turns.update({reply.slot: Turn.FIRST for reply in going if reply.frames == 0})
    rows = rows_of(list(turns))
    codes = steps.frame(rows, [turns.get(slot, Turn.REST) for slot in range(rows.start, rows.stop)])
    eos = steps.model.config.codebook_eos
    at_end = (codes == eos).tolist()
    loud = [False] * (rows.stop - rows.start)
    for reply in going:
        reply.frames += 1
        zeros = at_end[reply.slot - rows.start]
        if all(zeros[:-1]):  # the official test leaves the last codebook out; its frame may still sound
            reply.end = "sound"
        elif reply.frames >= reply.frames_at_most:
            reply.end = "length"
        loud[reply.slot - rows.start] = not all(zeros)
    pcm = steps.sound(rows, loud) if sound and any(loud) else None
    found = []
    for reply in replies:
        row = reply.slot - rows.start
        heard = reply.slot in turns and loud[row]
        found.append(
            Frame(
                words.get(reply.slot),
                codes[row] if heard else None,
                pcm[row] if heard and pcm is not None else None,
            )
        )
    return found


def _thinks(reply: Reply) -> bool:
    """Whether a word comes in with the next frame: with every second one."""
    return not reply.text_over and reply.frames % 2 == 0


def _need(reply: Reply) -> int:
    """Backbone positions of the next frame, at most."""
    if reply.frames == 0:
        return POSITIONS[Turn.FIRST]
    return POSITIONS[Turn.PAIR if _thinks(reply) else Turn.SOUND]


def _words(steps: Steps, replies: Sequence[Reply]) -> dict[int, int]:
    """The next word of each, by slot; a reply whose text just ended is marked so."""
    if not replies:
        return {}
    thinking = [r for r in replies if r.frames > 0]
    for reply in thinking:
        if steps.slots.thinker.room(reply.slot) < 1:
            reply.text_over = True  # no room to think on: the sound of what was said goes on
    thinking = [r for r in thinking if not r.text_over]
    replies = [r for r in replies if not r.text_over]
    if not replies:
        return {}
    if thinking:
        rows = rows_of([r.slot for r in thinking])
        on = {r.slot for r in thinking}
        steps.think(rows, [slot in on for slot in range(rows.start, rows.stop)])
    rows = rows_of([r.slot for r in replies])
    on = {r.slot for r in replies}
    steps.conclude(rows, [slot in on for slot in range(rows.start, rows.stop)])
    words = dict(zip(range(rows.start, rows.stop), steps.slots.token[rows].tolist(), strict=True))
    found = {}
    for reply in replies:
        word = words[reply.slot]
        if reply.say is not None:
            word = reply.say.popleft()
            steps.slots.token[reply.slot] = word
        reply.words.append(word)
        reply.text_over = word == steps.model.config.im_end
        found[reply.slot] = word
    return found
