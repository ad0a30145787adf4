"""What can go wrong in the gateway.

VoicegateError
├── SettingsError   a setting is unknown, malformed or out of range
├── DialplanError   a dialplan does not load; names file, line and remedy
├── PlayedFileError  a recording of a dialplan's cannot be played; says what helps
├── CallRefused     a call cannot be taken; carries the SIP status the caller hears
│   └── HallRefused  … by this hall; another one may take it
├── NoFlow          a server cannot be reached, or is not whom its certificate says
├── LineError       a line is gone or broke the tick's form
├── RpcError        a request between processes failed
│   ├── RpcTimeout  … because nobody answered in time
│   └── OtherVersion  … because the other process runs another version of the gateway
├── StartError      a part of the house did not start
├── BindingsNotKept where a registered telephone is cannot be written down
└── CallerError     the test phone cannot do what it was asked to
"""

from typing import Literal

RefusalCause = Literal[
    "", "lines busy", "halls busy", "no hall", "draining", "registry", "office", "line", "offer"
]
"""Why a call was not taken, in words that are few enough for a metric's label."""


class VoicegateError(Exception):
    """Base of every error of the gateway. Its text is fit for an operator's eyes."""


class SettingsError(VoicegateError):
    """A setting cannot be used."""


class DialplanError(VoicegateError):
    """A dialplan cannot be used."""


class PlayedFileError(VoicegateError):
    """A recording cannot be played."""


class CallRefused(VoicegateError):
    """A call is not taken.

    `status` is a SIP status (RFC 3261 §21); `retry_after_s` becomes `Retry-After`.
    `call_id` is the id that the call had by then, if any. `cause` is the reason for the metrics; empty: the
    status says it.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        retry_after_s: int | None = None,
        call_id: str | None = None,
        cause: RefusalCause = "",
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.call_id = call_id


class HallRefused(CallRefused):
    """The hall that was chosen does not take the call; another one may."""


class NoFlow(VoicegateError):
    """There is no way to a server: it does not answer, or its certificate does not hold."""


class LineError(VoicegateError):
    """A line is gone, or sent what is not a tick."""


class RpcError(VoicegateError):
    """The other process refused or could not do what was asked."""


class RpcTimeout(RpcError):
    """The other process did not answer in time."""


class OtherVersion(RpcError):
    """The other process runs another version of the gateway: it is not talked with."""


class StartError(VoicegateError):
    """A part of the house did not start; the message says which and how to fix it."""


class BindingsNotKept(VoicegateError):
    """A change of where registered telephones are was not written down, and so did not happen."""


class CallerError(VoicegateError):
    """The test phone cannot do what it was asked to."""
