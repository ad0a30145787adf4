"""What can go wrong in `model`.

EngineError
├── EngineBusy       no slot, or a reply that could not keep time: refused at once
├── EarsError        the ears do not start, or what is said on their socket is not theirs
├── EngineLost       the connection to the engine is gone
├── EngineEnds       the engine cannot go on, in a process that is not its own to end
├── GrantSpent       the grant has opened a session before: another one is needed
├── EngineRefused    the engine will never take this conversation: asking again is of no use
├── ClientGone       the client closed its socket: nothing more can be said to it
├── ProtocolError    an event is unknown or has a wrong field; names it
├── ChatServerError  the chat server did not answer as it should; `kind` says how
├── CheckpointError  weights that cannot be loaded: names the file, the key or the tensor
└── VoiceError       a voice that this engine cannot speak with: says what it lacks
"""

from typing import Any


class EngineError(Exception):
    """Base of every error of this package. `code` is the word in the `error` event."""

    code = "engine_error"


class EngineBusy(EngineError):
    """The engine takes no more now."""

    code = "busy"


class EarsError(EngineError):
    """The ears cannot be had, or were told what nobody may say."""

    code = "ears"


class EngineLost(EngineError):
    """The engine's connection is gone."""

    code = "lost"


class EngineEnds(EngineError):
    """The engine cannot go on, and this process is not its own to end (`model.own_process`)."""

    code = "lost"


class GrantSpent(EngineError):
    """One grant opens one session."""

    code = "grant_replayed"


class EngineRefused(EngineError):
    """The engine cannot hold this conversation, now or later; the message says why."""

    code = "refused"


class ClientGone(EngineError):
    """Nobody is there to hear more."""

    code = "gone"


class ProtocolError(EngineError):
    """An event that the contract does not know, or cannot be had now. `param` names the event or field."""

    def __init__(self, message: str, param: str, *, code: str = "unknown_parameter") -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.event_id: str | None = None
        """of the client's event, where it had one"""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.param), self.__dict__


class ChatServerError(EngineError):
    """A chat server that did not answer, or not as the protocol has it; `kind` is the metrics' word for it.

    The text never holds what the server said, since that may be the caller's own words. `lasting`: asking
    again now is of no use; `retry_after_s`: when the server wants to be asked again.
    """

    code = "chat_server"

    def __init__(
        self, kind: str, message: str, *, lasting: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.lasting = lasting
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, str(self)), self.__dict__


class CheckpointError(EngineError):
    """A checkpoint that is not what it should be."""

    code = "checkpoint"


class VoiceError(EngineError):
    """A reference without what the engine needs."""

    code = "voice_unusable"
