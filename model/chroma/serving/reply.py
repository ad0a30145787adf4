"""A reply under way: which step its next frame needs, and one batched step for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from numpy.typing import NDArray

from model.chroma.serving.plan import Ending, Told
from model.chroma.serving.steps import Steps

End = Literal["sound", "positions", "length", "failed"]
"""Why a reply is over: the model ended it, the backbone is full, it is as long as it may be, or an error."""
ENDS: Final[dict[Ending, End | None]] = {
    Ending.GOING: None,
    Ending.SOUND: "sound",
    Ending.POSITIONS: "positions",
    Ending.LENGTH: "length",
}


@dataclass(slots=True, eq=False)
class Reply:
    """What the host knows of a reply; the slot decides. `say` are words that are spoken instead of the
    thinker's own, the end of text included; `pending`: its next word is there already."""

    slot: int
    frames_at_most: int
    say: Sequence[int] | None = None
    words: list[int] = field(default_factory=list)
    frames: int = 0
    begun: bool = False
    pending: bool = True
    text_over: bool = False
    end: End | None = None

    @property
    def takes_word(self) -> bool:
        """A word comes in with the next frame: with every second one."""
        return self.pending and self.frames % 2 == 0

    @property
    def wants_word(self) -> bool:
        """The thinker must go on beside the next frame; at other times it may."""
        return not (self.pending or self.text_over) and self.frames % 2 == 1


@dataclass(frozen=True, slots=True)
class Frame:
    """What one step brought to a reply, on the host. `word` came in with this frame; `codes`
    `(codebooks,)` are None once the sound is over; `pcm` `(frame,)` float32 is the sound."""

    word: int | None = None
    codes: NDArray[Any] | None = None
    pcm: NDArray[Any] | None = None


def perform(steps: Steps, replies: Sequence[Reply], *, sound: bool = True) -> list[Frame]:
    """One frame further, all at once; `end` is set where a reply is over. Each reply has its own slot."""
    for reply in replies:
        if not reply.begun:
            steps.slots.begin(reply.slot, reply.frames_at_most, reply.say)
            reply.begun = True
    slots = [reply.slot for reply in replies]
    shape = steps.shape(
        slots,
        words=any(reply.wants_word for reply in replies),
        pairs=any(reply.takes_word for reply in replies),
        sound=sound,
    )
    told = steps.run(shape, slots)
    return [_outcome(steps, reply, row) for reply, row in zip(replies, told, strict=True)]


def _outcome(steps: Steps, reply: Reply, row: NDArray[Any]) -> Frame:
    """What the step told of a reply."""
    told = Told.of(row, steps.model.config.codebooks)
    steps.slots.learn(reply.slot, told)
    reply.end, reply.pending, reply.text_over = ENDS[told.end], told.pending, told.text_over
    if told.end is Ending.POSITIONS:
        return Frame()
    reply.frames += 1
    if told.word is not None:
        reply.words.append(told.word)
    if not told.heard:
        return Frame(told.word)
    return Frame(told.word, told.codes, told.pcm if len(told.pcm) else None)
