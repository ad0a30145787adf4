"""All weights of a Chroma, named as the official checkpoint names them; state is in `slots`.

Reasoner (thinker): hears and thinks in text. Backbone: turns the thinker's states and the voice into the
first code of each frame. Decoder: adds the frame's other codes. Mimi: codes to sound and back.
(Chroma report, arXiv 2601.11141, §2.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.chroma.network.config import ChromaConfig
from model.chroma.network.hearing import AudioTower
from model.chroma.network.mimi import Mimi
from model.chroma.network.stack import Stack


class Thinker(nn.Module):
    """The Reasoner: audio encoder, text stack, its head."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.audio_tower = AudioTower(config.hearing)
        self.model = Stack(config.thinker, embed=True)
        self.lm_head = nn.Linear(config.thinker.hidden, config.thinker.vocab, bias=False)

    def embed(self, ids: Tensor) -> Tensor:
        """`(…)` ids to `(…, H)`."""
        return self.model.embed_tokens(ids)  # type: ignore[no-any-return]  # nn.Module's call


class Backbone(nn.Module):
    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.model = Stack(config.backbone)
        self.codebook0_head = nn.Linear(config.backbone.hidden, config.codebook_vocab, bias=False)


class Decoder(nn.Module):
    """The frame's depth: codebooks 1 and up, one after the other."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.backbone.hidden, config.decoder.hidden, bias=False)
        self.model = Stack(config.decoder)
        self.codebook_head = CodebookHeads(config)


class CodebookHeads(nn.Module):
    """One head for each codebook but the first."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.zeros(config.codebooks - 1, config.decoder.hidden, config.codebook_vocab)
        )

    def forward(self, x: Tensor, book: int) -> Tensor:
        """`(B, H)` to the logits `(B, V)` of codebook `book`, 1 or more."""
        return x @ self.weight[book - 1]


class Chroma(nn.Module):
    """The model. `audio_table` `(codebooks * codebook_vocab, H)` is shared by backbone and decoder."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.config = config
        self.thinker = Thinker(config)
        self.backbone = Backbone(config)
        self.decoder = Decoder(config)
        self.codec_model = Mimi(config.codec)
        self.audio_table = nn.Parameter(
            torch.zeros(config.codebooks * config.codebook_vocab, config.backbone.hidden)
        )
        self.kept: torch.dtype | None = None
        """of the keys and values that conversations keep of thinker and backbone; None: as all else"""

    @property
    def device(self) -> torch.device:
        return self.audio_table.device

    @property
    def dtype(self) -> torch.dtype:
        return self.audio_table.dtype

    @property
    def kv_dtype(self) -> torch.dtype:
        """The type of the keys and values that conversations keep of thinker and backbone."""
        return self.kept or self.dtype

    def embed_code(self, codebook: int, code: Tensor) -> Tensor:
        """Codes `(B,)` of one codebook to `(B, H)`."""
        vocab = self.config.codebook_vocab
        return F.embedding(code, self.audio_table[codebook * vocab : (codebook + 1) * vocab])

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Codes `(…, codebooks)` to the sum of their embeddings `(…, H)`."""
        offsets = torch.arange(0, len(self.audio_table), self.config.codebook_vocab, device=codes.device)
        return F.embedding(codes + offsets, self.audio_table).sum(-2)

    def voice_prompt(self, text: Tensor, codes: Tensor) -> Tensor:
        """Prompt text `(n,)` and the reference's codes `(frames, codebooks)` to `(P, H)`.

        Begin and end of text around the words, a position for each frame, and a zero vector.
        """
        config = self.config
        ids = F.pad(text, (1, 1))
        ids[0], ids[-1] = config.text_start, config.text_end
        frames = self.embed_frames(codes)
        return torch.cat((self.thinker.embed(ids), frames, frames.new_zeros(1, frames.shape[1])))
