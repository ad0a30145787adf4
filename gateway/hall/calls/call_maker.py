"""How a call is put together of its parts, and how long ago it came."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from gateway.config.settings import Settings
from gateway.dialplan import Disclosure
from gateway.hall.calls.call import AskFront, Call
from gateway.hall.calls.call_ear import CallEar
from gateway.hall.calls.seat import Seat
from gateway.hall.dialogue.call_notes import CallNotes
from gateway.hall.dialogue.memory import Item, Memory
from gateway.hall.dialogue.prompts import Prompts
from gateway.hall.dialogue.scribe import Scribe
from gateway.hall.dialogue.speech import Speech
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.first_sounds import FirstSounds
from gateway.hall.parts.inbox import Inbox
from gateway.hall.parts.licence import Licence
from gateway.hall.parts.playout import Playout
from gateway.ipc.envelope import Tell
from gateway.ipc.hall_messages import CallOffer
from gateway.ipc.rpc import Peer
from gateway.rtp.media.rate_changer import FILTER_DELAY_S
from gateway.store.sessions import Sessions
from model.client import EngineClient
from model.ears.ears_client import Ears
from watermark.mark import MARK_DELAY_S


@dataclass(frozen=True, slots=True)
class Past:
    """What Redis remembers of a call whose hall died."""

    disclosed: list[Disclosure]
    history: list[Item]


@dataclass(frozen=True, slots=True)
class CallMaker:
    """What all calls of a hall share."""

    settings: Settings
    sessions: Sessions
    engine: EngineClient
    prompts: Prompts
    scribe: Scribe
    ears: Ears | None
    first_sounds: FirstSounds
    tell_front: Callable[[Tell], None]
    ask_front: AskFront
    clocks: Clocks
    telephones: Callable[[], Iterable[Peer]]
    """the hall's lines for telephones at 16 kHz"""

    def make(self, offer: CallOffer, seat: Seat, past: Past | None, turned: Callable[[], object]) -> Call:
        """The call with all its parts. `turned`: its voice began, or is silent again."""
        log = structlog.get_logger("call").bind(call_id=offer.call_id)
        session = self.sessions.session(offer.call_id)
        playout = Playout(MARK_DELAY_S + FILTER_DELAY_S, turned, self.clocks)
        inbox = Inbox(playout, log)
        line = CallLine(offer.call_id, page=offer.facts.transport == "webrtc", telephones=self.telephones)
        memory = Memory(
            past.history if past is not None else (),
            keeps_sound=offer.route.keep.caller_audio,
            keeps_words=offer.route.keep.transcript,
            language=offer.route.language,
            told=session.remember,
        )
        speech = Speech(
            offer.call_id,
            self.engine,
            playout,
            self.prompts,
            self.settings.lead_s,
            line=line,
            memory=memory,
            first_sounds=self.first_sounds,
            clocks=self.clocks,
            note=session.event,
        )
        return Call(
            offer=offer,
            seat=seat,
            line=line,
            ear=CallEar(
                playout,
                speech,
                inbox,
                clocks=self.clocks,
                house_ears=self.ears,
                hears_early=self.settings.turns_by_words != "off",
            ),
            playout=playout,
            speech=speech,
            inbox=inbox,
            licence=Licence(offer.route),
            session=session,
            notes=CallNotes(session, memory, self.scribe),
            tell_front=self.tell_front,
            ask_front=self.ask_front,
            log=log,
            resumed=past is not None,
            disclosed=past.disclosed if past is not None else [],
            clocks=self.clocks,
        )
