"""Words and turns as ids: the checkpoint's own tokenizer and chat template, cut into pieces.

A conversation's keys and values are kept, so turns are fed in pieces: before a sound, after it, the opening
and the close of an answer. The pieces are cut out of what the template renders.

A test checkpoint has no tokenizer. For those only there is `ByteStandIn`: it makes calls go through and its
text means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from model.chroma.network.config import ChromaConfig
from model.errors import CheckpointError

DEFAULT_SYSTEM: Final = "You are a helpful assistant who speaks on the telephone. Answer briefly."
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
TOY_VOCABULARY: Final = 4096
"""A thinker with fewer words than this is no real one; only there may bytes stand in for a tokenizer."""

_SYSTEM, _ANSWER = "the-system-text", "the-answer-text"


class Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Chat:
    """The pieces of a conversation, as ids. `meaningless`: bytes stand in for a tokenizer."""

    tokenizer: Tokenizer
    system_open: list[int]
    system_close: list[int]
    user_open: list[int]
    sound_open: list[int]
    sound_close: list[int]
    user_close: list[int]
    answer_open: list[int]
    answer_close: list[int]
    im_end: int
    meaningless: bool = False

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in ids if token != self.im_end])

    def system(self, text: str) -> list[int]:
        return [*self.system_open, *self.encode(text or DEFAULT_SYSTEM), *self.system_close]

    def answer(self, ids: Sequence[int]) -> list[int]:
        """A closed answer of these words."""
        return [*self.answer_open, *ids, *self.answer_close]


class _Pretrained:
    """The checkpoint's tokenizer, by transformers."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def encode(self, text: str) -> list[int]:
        return list(self._inner.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(
            self._inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


class ByteStandIn:
    """Bytes as words, round and round a vocabulary that may be too small for them: for test checkpoints."""

    def __init__(self, config: ChromaConfig) -> None:
        self._ids = [token for token in range(config.thinker.vocab) if token not in config.specials]
        self._bytes = {token: at for at, token in enumerate(self._ids)}

    def encode(self, text: str) -> list[int]:
        return [self._ids[byte % len(self._ids)] for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        raw = (self._bytes.get(token, 0) for token in ids)
        return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in raw)


def load(directory: Path, config: ChromaConfig) -> Chat:
    """The directory's tokenizer and template. Raises `CheckpointError`."""
    if not any((directory / name).exists() for name in TOKENIZER_FILES):
        if config.thinker.vocab >= TOY_VOCABULARY:
            raise CheckpointError(f"{directory} has no tokenizer ({', '.join(TOKENIZER_FILES)})")
        return stand_in(config)
    from transformers import AutoTokenizer

    try:
        inner = AutoTokenizer.from_pretrained(str(directory))
    except Exception as error:  # whatever a broken file makes of it
        raise CheckpointError(f"{directory}: the tokenizer cannot be loaded: {error}") from None
    return cut(inner, config)


def stand_in(config: ChromaConfig) -> Chat:
    """A chat in bytes for a test checkpoint without a tokenizer; `pad` opens turns."""
    bytes_ = ByteStandIn(config)
    newline = bytes_.encode("\n")
    close = [config.im_end, *newline]
    return Chat(
        bytes_,
        system_open=[config.pad, *bytes_.encode("system\n")],
        system_close=close,
        user_open=[config.pad, *bytes_.encode("user\n")],
        sound_open=[config.audio_start],
        sound_close=[config.audio_end],
        user_close=close,
        answer_open=[config.pad, *bytes_.encode("assistant\n")],
        answer_close=close,
        im_end=config.im_end,
        meaningless=True,
    )


def cut(inner: Any, config: ChromaConfig) -> Chat:
    """The pieces of a transformers tokenizer's chat template. Raises `CheckpointError`."""
    tokenizer = _Pretrained(inner)
    sound = inner.convert_ids_to_tokens(config.audio_token)
    bounds = [inner.convert_ids_to_tokens(token) for token in (config.audio_start, config.audio_end)]
    im_end = inner.convert_ids_to_tokens(config.im_end)
    if None in (sound, im_end, *bounds):
        raise CheckpointError(
            "the tokenizer does not know the ids that config.json names for sound and turns"
        )
    if getattr(inner, "chat_template", None):
        pieces = _cut_template(inner, str(sound), str(bounds[0]), str(bounds[1]))
    else:  # the format that the template of the first release renders
        start = "<|im_start|>"
        pieces = (
            f"{start}system\n", f"{im_end}\n", f"{start}user\n", str(bounds[0]), str(bounds[1]),
            f"{im_end}\n", f"{start}assistant\n", f"{im_end}\n",
        )  # fmt: skip
    ids = [tokenizer.encode(piece) for piece in pieces]
    if ids[7][:1] != [config.im_end]:
        raise CheckpointError(f"the chat template does not close an answer with {im_end}")
    return Chat(
        tokenizer,
        system_open=ids[0],
        system_close=ids[1],
        user_open=ids[2],
        sound_open=ids[3],
        sound_close=ids[4],
        user_close=ids[5],
        answer_open=ids[6],
        answer_close=ids[7],
        im_end=config.im_end,
    )


def _cut_template(inner: Any, sound: str, sound_open: str, sound_close: str) -> tuple[str, ...]:
    """What the template writes around system text, a sound and an answer."""

    def render(*messages: dict[str, Any], opened: bool = False) -> str:
        return str(inner.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))

    system = {"role": "system", "content": [{"type": "text", "text": _SYSTEM}]}
    user = {"role": "user", "content": [{"type": "audio", "audio": "sound"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
    try:
        first = render(system)
        second = render(system, user).removeprefix(first)
        third = render(system, user, opened=True).removeprefix(first + second)
        fourth = render(system, user, answer).removeprefix(first + second)
    except Exception as error:  # a template may raise anything
        raise CheckpointError(f"the chat template cannot be used: {error}") from None
    before, middle, after = second.partition(f"{sound_open}{sound}{sound_close}")
    system_open, found_system, system_close = first.partition(_SYSTEM)
    _, found_answer, answer_close = fourth.partition(_ANSWER)
    if not (middle and found_system and found_answer and third and fourth.startswith(third)):
        raise CheckpointError(
            "the chat template is not of the kind that this engine knows: "
            f"a sound must be written {sound_open}{sound}{sound_close}"
        )
    return system_open, system_close, before, sound_open, sound_close, after, third, answer_close


class Words:
    """Ids to text as they come: a character split between two ids waits for its second half."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._said = ""

    def add(self, token: int) -> str:
        """The text that is certain now and was not before."""
        self._ids.append(token)
        text = self._chat.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        delta = text.removeprefix(self._said)
        self._said = text
        return delta


def whole_words(chat: Chat, ids: Sequence[int], count: int) -> int:
    """At most `count` of `ids`, back to where a word ends."""
    count = min(count, len(ids))
    text = chat.decode(ids)
    while 0 < count < len(ids):
        head = chat.decode(ids[:count])
        if not head.endswith("\ufffd") and (head[-1:].isspace() or text[len(head) : len(head) + 1].isspace()):
            break
        count -= 1
    return count
