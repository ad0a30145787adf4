"""Which call is treated how: the routes, the verbs, and what reads them from TOML files."""

from gateway.dialplan.dialplan import Dialplan, Match
from gateway.dialplan.disclosure import Disclosure
from gateway.dialplan.plan_facts import clock_facts, fill
from gateway.dialplan.routes import Hours, Keep, Route, fits
from gateway.dialplan.uri_parts import split_uri
from gateway.dialplan.verbs import (
    VERBS,
    Answer,
    Converse,
    Disclose,
    Enroll,
    Gather,
    Hangup,
    Playback,
    Record,
    Reply,
    Say,
    Transfer,
    Verb,
    VoiceOwner,
)

__all__ = [
    "VERBS",
    "Answer",
    "Converse",
    "Dialplan",
    "Disclose",
    "Disclosure",
    "Enroll",
    "Gather",
    "Hangup",
    "Hours",
    "Keep",
    "Match",
    "Playback",
    "Record",
    "Reply",
    "Route",
    "Say",
    "Transfer",
    "Verb",
    "VoiceOwner",
    "clock_facts",
    "fill",
    "fits",
    "split_uri",
]
