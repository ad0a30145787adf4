"""Sentences become the points of the reference: the original weights in float32 by transformers on torch.

`reference.npz` holds 100 sentences, the numbers that `tokenizers` gives them by the model's own file
(sha256 be50c362…), and their points by the original weights (sha256 53aa5117…).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consent.errors import ModelFileError, ModelFileMissing
from model.errors import EngineError
from model.meaning import wordpiece
from model.meaning.embedder import WEIGHTS, Embedder
from model.meaning.wordpiece import LONGEST, encode, vocabulary
from tests.needs import MODELS, need_model

REFERENCE = np.load(Path(__file__).with_name("reference.npz"))
TEXTS = [text.decode() for text in REFERENCE["texts"]]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    need_model("meaning")
    return Embedder.load(MODELS)


def test_the_pieces_are_those_of_the_reference() -> None:
    for text, row in zip(TEXTS, REFERENCE["ids"], strict=True):
        assert encode(text) == [int(number) for number in row if number >= 0], text


def test_a_hundred_sentences_have_the_references_points(embedder: Embedder) -> None:
    points = REFERENCE["points"].astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cosines = np.sum(embedder.embed(TEXTS) * points, axis=1)
    assert len(cosines) == 100
    assert cosines.min() > 0.995
    assert cosines.mean() > 0.999


def test_a_sentence_has_one_point_whatever_stands_beside_it(embedder: Embedder) -> None:
    alone = embedder.embed(TEXTS[:1])[0]
    assert np.array_equal(embedder.embed(TEXTS[:5])[0], alone)
    assert np.linalg.norm(alone) == pytest.approx(1.0, abs=1e-5)


def test_nothing_and_too_much_have_points_too(embedder: Embedder) -> None:
    assert len(encode("word " * 1000)) == LONGEST
    assert np.isfinite(embedder.embed(["", "word " * 1000])).all()
    assert embedder.embed([]).shape == (0, 384)


def test_without_its_file_or_with_another_it_says_which_command_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(ModelFileMissing, match="voicegate models get meaning"):
        Embedder.load(tmp_path)
    WEIGHTS.paths(tmp_path)[0].write_bytes(b"onnx")
    with pytest.raises(ModelFileError, match="is not the file that"):
        Embedder.load(tmp_path)


def test_another_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (None, "[PAD]\n"):
        vocabulary.cache_clear()
        path = tmp_path / "vocab.txt"
        if content is not None:
            path.write_text(content)
        monkeypatch.setattr(wordpiece, "PATH", path)
        with pytest.raises(EngineError, match="install voicegate again"):
            vocabulary()
    monkeypatch.undo()
    vocabulary.cache_clear()
    assert len(vocabulary()) == 30_522
