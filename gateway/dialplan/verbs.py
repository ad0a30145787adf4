"""The verbs of a dialplan: what a call may be told to do, one frozen dataclass each.

A verb is written `verb = "say"` with its fields beside it and travels between processes as the same JSON.
To add one: write its dataclass and enter it in `VERBS`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gateway.dialplan.disclosure import WORDINGS, sentence, why_no_principal
from gateway.dialplan.played_file import why_no_path

STRICT: Final = ConfigDict(extra="forbid", strict=True, serialize_by_alias=True)

MAILTO: Final = r"^mailto:[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*$"
"""One address (RFC 6068), without anything behind it."""
NAME: Final = r"[a-z][a-z0-9_-]{0,39}"
"""Names of routes, targets and intents."""

Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Words = Annotated[str, Field(max_length=4000)]
"""Like `Text`, but may be empty: nothing is said."""
Digits = Annotated[str, Field(pattern=r"^[0-9A-D*#]{1,32}$")]


def _phrase(words: str) -> str:
    if not all(letter in "' " or unicodedata.category(letter) == "Ll" for letter in words) or not words:
        raise ValueError("phrases are lower-case words, without marks and digits: 'are you open at ten'")
    return words


Phrase = Annotated[str, Field(max_length=80), AfterValidator(_phrase)]
"""What a caller may say to ask for something: lower-case words, as a recogniser's grammar has them."""


def _principal(name: str) -> str:
    why = why_no_principal(name)
    if why is not None:
        raise ValueError(why)
    return name


def _processor(name: str) -> str:
    why = why_no_principal(name, "that processes what callers say") if name else None
    if why is not None:
        raise ValueError(why)
    return name


def _disclosed_language(language: str) -> str:
    if language not in WORDINGS:
        raise ValueError(f"there are no words for it; there are for {', '.join(WORDINGS)}")
    return language


def _recording(path: str) -> str:
    why = why_no_path(path)
    if why is not None:
        raise ValueError(why)
    return path


def _perhaps_recording(path: str | None) -> str | None:
    return None if path is None else _recording(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Takes the call (200 OK). The first verb of every route; the sound of the next one is ready by then."""

    __pydantic_config__ = STRICT
    verb: Literal["answer"] = "answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Disclose:
    """Says that a machine speaks, for whom, and of a person's voice that it is a copy; never interrupted.

    The words are the house's, by language (`gateway.dialplan.disclosure`). A plan may add to them.
    """

    __pydantic_config__ = STRICT
    verb: Literal["disclose"] = "disclose"
    principal: Annotated[str, AfterValidator(_principal)]
    """The company or person for whom the machine speaks."""
    language: Annotated[str, AfterValidator(_disclosed_language)]
    processor: Annotated[str, AfterValidator(_processor)] = ""
    """Who else processes what callers say: the company behind a chat server that is not on this machine."""
    before: Annotated[str, Field(max_length=120)] = ""
    """A greeting, said before the house's words."""
    text: Words = ""
    """Said after them."""

    def words(self, *, cloned: bool) -> str:
        """All that is said. `cloned`: the voice is a person's."""
        said = sentence(self.principal, self.language, cloned=cloned, processor=self.processor)
        return " ".join(part for part in (self.before.strip(), said, self.text.strip()) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Say:
    """Says a text verbatim."""

    __pydantic_config__ = STRICT
    verb: Literal["say"] = "say"
    text: Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Playback:
    """Plays a recording of the operator's own. Before `answer` it is heard while the call is not taken yet.

    Nothing of it is an engine's: it is marked like all else, and is silent where the call's voice is.
    """

    __pydantic_config__ = STRICT
    verb: Literal["play"] = "play"
    file: Annotated[str, AfterValidator(_recording)]
    """A WAV file in the folder of the plans, from there downwards."""
    text: Words = ""
    """What is said in it, for the call's events and for the engine of a conversation after it."""
    synthetic: bool = True
    """A synthetic voice is heard in it. `false` is the operator's word that none is: then it may come before
    a disclosure."""
    interruptible: Literal["no", "keys", "speech", "both"] = "no"
    """What of the caller's ends it. The key counts for the verb after it."""
    loop: bool = False
    """Again and again, until something ends it."""
    max_s: Annotated[float | None, Field(ge=0.1, le=3600)] = None
    """How much of it is played; None: all, and of a loop no end."""
    normalise: bool = True
    """It is made as loud as voices are; else it stays as it was recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One thing a caller may ask of a `Converse`, and what follows.

    `say` may hold facts in braces. With `tool`, `say` is spoken before the tool is used: `transfer` to the
    conversation's target, `hang_up`, or `repeat` (the bot's last answer once more).
    """

    __pydantic_config__ = STRICT
    intent: Name
    ask: tuple[Phrase, ...] = ()
    library: Name | None = None
    """An intent of the engine's library (`model.meaning`), whose paraphrases join `ask`."""
    about: Words = ""
    """How a confirming question names it: "our opening hours"; empty: the intent's name."""
    say: Words = ""
    tool: Literal["transfer", "hang_up", "repeat"] | None = None
    confirm: bool = False
    """Ask the caller first, however sure the engine is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converse:
    """A live conversation with the engine, until goodbye, a transfer, silence or `max_s`.

    `instructions` are for engines that think, `answers` for those that recognise; both know the `facts`.
    """

    __pydantic_config__ = STRICT
    verb: Literal["converse"] = "converse"
    instructions: Text
    greeting: Words = ""
    """Said first, verbatim."""
    facts: dict[Name, str] = field(default_factory=dict)
    answers: tuple[Reply, ...] = ()
    unsure: Text = "Did you ask about {about}? Please say yes or no."
    which: Text = "Did you ask about {about}, or about {other}?"
    """Asked where two answers are near."""
    not_understood: Annotated[tuple[Text, ...], Field(min_length=1)] = ("Sorry, I did not understand that.",)
    """In turn, the last one again and again."""
    silence_s: Annotated[float, Field(ge=1, le=120)] = 6.0
    """How long nobody speaks before a prompt."""
    silence_prompts: tuple[Text, ...] = ("Are you still there?",)
    """One per silence; after the last one comes goodbye."""
    goodbye: Text = "Goodbye."
    max_s: Annotated[float | None, Field(ge=5, le=86_400)] = None
    """None: until the call's own limit."""
    transfer: Name | None = None
    """A name in `[targets]`; none: a caller who asks for a person hears `no_transfer`."""
    no_transfer: Text = "I am sorry, there is nobody I could put you through to."
    engine_lost: Text = "I am sorry, we have a technical problem. Please call again later."
    busy: Text = "I am sorry, all our lines are busy. Please call again later."
    interruptible: bool = True
    languages: dict[str, Name] = field(default_factory=dict)
    """The route of a caller who speaks another language than this one's (ISO 639-1); `else`: one that is not
    named."""
    other_language: Words = ""
    """Said to a caller whose language leads nowhere; empty: the house's words for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gather:
    """Asks for DTMF digits and goes on as another route: `branches` maps what was dialled to a route's name.

    Nothing dialled, or nothing that fits: `else`, and without that the verb after this one. With `file` the
    operator's own recording asks, and `prompt` is what is said in it.
    """

    __pydantic_config__ = STRICT
    verb: Literal["gather"] = "gather"
    prompt: Words = ""
    """Empty only where a recording asks."""
    file: Annotated[str | None, AfterValidator(_perhaps_recording)] = None
    """See `Playback`, as the next two."""
    synthetic: bool = True
    normalise: bool = True
    branches: Annotated[dict[Digits, Name], Field(min_length=1)]
    otherwise: Annotated[Name | None, Field(alias="else")] = None
    digits: Annotated[int, Field(ge=1, le=32)] = 1
    """The most that the caller may dial."""
    timeout_s: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    """After the prompt, and between digits."""
    finish_key: Annotated[str, Field(pattern=r"^[0-9A-D*#]?$")] = "#"

    @property
    def recorded(self) -> Playback | None:
        """The recording that asks, which any key ends; None: the voice does."""
        if self.file is None:
            return None
        return Playback(
            file=self.file,
            text=self.prompt,
            synthetic=self.synthetic,
            normalise=self.normalise,
            interruptible="keys",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """Hands the call to a target of the plan's `[targets]`. The verbs after it are for when that fails."""

    __pydantic_config__ = STRICT
    verb: Literal["transfer"] = "transfer"
    target: Name
    say: Words = ""
    """Said first, verbatim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Records the caller's message, after saying so."""

    __pydantic_config__ = STRICT
    verb: Literal["record"] = "record"
    announce: Text
    max_s: Annotated[float, Field(ge=1, le=3600)] = 120.0
    silence_s: Annotated[float, Field(ge=1, le=60)] = 4.0
    """The silence that ends the recording."""
    beep: bool = True
    notify: Annotated[str, Field(pattern=MAILTO)] | None = None
    """Who is told by mail that there is a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enroll:
    """Takes a person's consent and some sentences of their voice; two operators decide about them later.

    The caller dials the ten digits of a challenge that an operator issued (`voicegate voice challenge
    --by-phone`), repeats the statement and the sentences piece by piece, and chooses a PIN. The statement
    itself is in the challenge's language.
    """

    __pydantic_config__ = STRICT
    verb: Literal["enroll"] = "enroll"
    ask_code: Text = "Please enter the ten digits of your code."
    wrong_code: Text = "This code is not valid now."
    begin: Text = "I say a sentence, and you repeat it after the tone. Please speak as you always do."
    ask_pin: Text = (
        "Now choose a PIN of six to twelve digits. With it you can take your voice back by telephone at any "
        "time. Please enter it, and then press the hash key."
    )
    wrong_pin: Text = "This PIN cannot be used. Please choose another one."
    done: Text = "Thank you. Two people will now listen to what you said before your voice is used."
    failed: Text = "I am sorry, this did not work. Nothing was kept. Please call again."
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    """For the code, the PIN, and each sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceOwner:
    """The owner's own door to a registered voice: where it was used lately, and taking it back.

    Both want the PIN of the registration, by DTMF. A caller who does not know it learns nothing.
    """

    __pydantic_config__ = STRICT
    verb: Literal["voice_owner"] = "voice_owner"
    voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
    ask_pin: Text = "Please enter your PIN, and then press the hash key."
    refused: Text = "This PIN is not right, or cannot be tried now."
    offer: Text = "To take your voice back, so that nobody may use it any more, press nine. To end, hang up."
    confirm: Text = "Please confirm with your PIN and the hash key. This cannot be undone by telephone."
    revoked: Text = "Your voice was taken back. From now on it is not used any more."
    revoke_key: Annotated[str, Field(pattern=r"^[0-9*]$")] = "9"
    tries: Annotated[int, Field(ge=1, le=5)] = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Hangup:
    """Ends the call."""

    __pydantic_config__ = STRICT
    verb: Literal["hangup"] = "hangup"
    say: Words = ""
    """Said first, verbatim."""


Verb = (
    Answer | Disclose | Say | Playback | Converse | Gather | Transfer | Record | Enroll | VoiceOwner | Hangup
)

VERBS: Final[Mapping[str, type[Verb]]] = {
    "answer": Answer,
    "disclose": Disclose,
    "say": Say,
    "play": Playback,
    "converse": Converse,
    "gather": Gather,
    "transfer": Transfer,
    "record": Record,
    "enroll": Enroll,
    "voice_owner": VoiceOwner,
    "hangup": Hangup,
}


def targets_of(verb: Any) -> Iterator[tuple[str, str]]:
    """(field, name) of each transfer target that a verb names."""
    if isinstance(verb, Transfer):
        yield "target", verb.target
    elif isinstance(verb, Converse) and verb.transfer is not None:
        yield "transfer", verb.transfer


def branches_of(verb: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, name) of each route that a verb may go on as."""
    if isinstance(verb, Gather):
        for digits, name in verb.branches.items():
            yield ("branches", digits), name
        if verb.otherwise is not None:
            yield ("else",), verb.otherwise
    elif isinstance(verb, Converse):
        for language, name in verb.languages.items():
            yield ("languages", language), name


def recording_of(verb: Any) -> Playback | None:
    """The operator's recording that a verb plays; None: it plays none."""
    if isinstance(verb, Gather):
        return verb.recorded
    return verb if isinstance(verb, Playback) else None
