"""What can go wrong in `model`.

EngineError
├── EngineBusy       no slot, or a reply that could not keep time: refused at once
├── EngineLost       the connection to the engine is gone
├── ProtocolError    an event is unknown or has a wrong field; names it
├── CheckpointError  weights that cannot be loaded: names the file, the key or the tensor
└── VoiceError       a voice that this engine cannot speak with: says what it lacks
"""


class EngineError(Exception):
    """Base of every error of this package. `code` is the word in the `error` event."""

    code = "engine_error"


class EngineBusy(EngineError):
    """The engine takes no more now."""

    code = "busy"


class EngineLost(EngineError):
    """The engine's connection is gone."""

    code = "lost"


class ProtocolError(EngineError):
    """An event that the contract does not know. `param` names the event or field."""

    code = "unknown_parameter"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class CheckpointError(EngineError):
    """A checkpoint that is not what it should be."""

    code = "checkpoint"


class VoiceError(EngineError):
    """A reference without what the engine needs."""

    code = "voice_unusable"
