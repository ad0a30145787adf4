"""Turns as ids: cut out of a chat template, and in bytes where a test checkpoint has no tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.chroma.network import config
from model.chroma.serving import chat
from model.chroma.serving.chat import Words, whole_words
from model.errors import CheckpointError
from tests.model.chroma import toy

CONFIG = config.parse(toy.TABLE)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(directory: Path, template: str | None = TEMPLATE) -> Any:
    """A byte-level tokenizer whose special ids are those of the toy's configuration."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: at for at, letter in enumerate(alphabet)}
    names = {
        299: "<|im_end|>",
        300: "<|im_start|>",
        303: "<|AUDIO|>",
        304: "<|audio_bos|>",
        305: "<|audio_eos|>",
    }
    for at in range(len(vocab), 310):
        vocab[names.get(at, f"<|unused{at}|>")] = at
    inner = Tokenizer(models.BPE(vocab, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    made = PreTrainedTokenizerFast(tokenizer_object=inner)
    if template is not None:
        made.chat_template = template
    made.save_pretrained(directory)
    return made


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("tokenizer")
    return directory, save_tokenizer(directory)


def test_pieces_make_what_the_template_renders(tokenizer: tuple[Path, Any]) -> None:
    directory, inner = tokenizer
    ours = chat.load(directory, CONFIG)
    assert not ours.meaningless
    pieces = [
        *ours.system("Be brief."), *ours.user_open, *ours.sound_open, 303, *ours.sound_close,
        *ours.user_close, *ours.answer(ours.encode("Good day.")), *ours.user_open,
        *ours.encode("And now?"), *ours.user_close, *ours.answer_open,
    ]  # fmt: skip
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "audio", "audio": "x"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Good day."}]},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    rendered = inner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert pieces == inner.encode(rendered, add_special_tokens=False)


def test_without_a_template_the_first_releases_format_is_used(tmp_path: Path) -> None:
    inner = save_tokenizer(tmp_path, template=None)
    ours = chat.load(tmp_path, CONFIG)
    expected = inner.encode("<|im_start|>assistant\nYes.<|im_end|>\n", add_special_tokens=False)
    assert ours.answer(ours.encode("Yes.")) == expected


def test_a_template_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, template=TEMPLATE.replace("<|audio_bos|>", "[sound]"))
    with pytest.raises(CheckpointError, match="not of the kind"):
        chat.load(tmp_path, CONFIG)


def test_a_template_that_raises_is_an_error_in_a_line(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, template="{{ raise_exception('no') }}")
    with pytest.raises(CheckpointError, match="cannot be used"):
        chat.load(tmp_path, CONFIG)


def test_bytes_stand_in_only_for_toys(tmp_path: Path) -> None:
    standing = chat.load(tmp_path, CONFIG)
    assert standing.meaningless
    assert standing.decode(standing.encode("Plain words, 1 2 3!")) == "Plain words, 1 2 3!"
    assert not CONFIG.specials & set(standing.encode("any text at all"))
    text = {**toy.TABLE["thinker_config"]["text_config"], "vocab_size": 151_936}
    real = {**toy.TABLE, "thinker_config": {**toy.TABLE["thinker_config"], "text_config": text}}
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        chat.load(tmp_path, config.parse(real))


def test_a_character_of_several_ids_is_said_whole(tokenizer: tuple[Path, Any]) -> None:
    ours = chat.load(tokenizer[0], CONFIG)
    words, text = Words(ours), "Grüße, 你好!"
    deltas = [words.add(token) for token in ours.encode(text)]
    assert "".join(deltas) == text
    assert "\ufffd" not in "".join(deltas)
    assert "" in deltas


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (0, ""),
        (3, ""),
        (5, "Hello"),
        (6, "Hello "),
        (8, "Hello "),
        (11, "Hello there"),
        (99, "Hello there you"),
    ],
)
def test_a_cut_falls_between_words(tokenizer: tuple[Path, Any], count: int, kept: str) -> None:
    ours = chat.load(tokenizer[0], CONFIG)
    ids = ours.encode("Hello there you")
    assert ours.decode(ids[: whole_words(ours, ids, count)]) == kept
