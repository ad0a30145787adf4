"""Mimi's codebooks: one semantic and several acoustic, each row of them on what the last one left over."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.chroma.network.config import CodecConfig

LEAST_USAGE = 1e-5
"""A codeword that was never used in training must not divide by zero."""


class Codebook(nn.Module):
    """Codewords as the sums and counts that training kept; `embed` is their quotient, in float32."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.embed_sum = nn.Parameter(torch.zeros(config.codebook_size, config.codebook_dim))
        self.cluster_usage = nn.Parameter(torch.ones(config.codebook_size))
        self._embed: Tensor | None = None

    @property
    def embed(self) -> Tensor:
        """`(codebook_size, codebook_dim)`."""
        if self._embed is None or self._embed.device != self.embed_sum.device:
            total, usage = self.embed_sum.detach(), self.cluster_usage.detach()
            if total.dtype in (torch.bfloat16, torch.float16):
                total, usage = total.float(), usage.float()
            self._embed = total / usage.clamp(min=LEAST_USAGE)[:, None]
        return self._embed

    def nearest(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to codes `(B, T)`."""
        embed = self.embed
        return torch.cdist(x.flatten(0, 1).to(embed.dtype), embed).argmin(-1).view(x.shape[:2])


class _Layer(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.codebook = Codebook(config)


class ResidualQuantizer(nn.Module):
    def __init__(self, config: CodecConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(layers))
        self.input_proj: nn.Conv1d | None = None
        self.output_proj: nn.Conv1d | None = None
        if config.quantizer_dim != config.hidden:
            self.input_proj = nn.Conv1d(config.hidden, config.quantizer_dim, 1, bias=False)
            self.output_proj = nn.Conv1d(config.quantizer_dim, config.hidden, 1, bias=False)

    def _codebooks(self) -> list[Codebook]:
        return [layer.codebook for layer in self.layers]  # type: ignore[misc]  # ModuleList forgets its type

    def encode(self, x: Tensor, books: int) -> list[Tensor]:
        """`(B, C, T)` to `books` codes of `(B, T)`."""
        if self.input_proj is not None:
            x = self.input_proj(x)
        left = x.transpose(1, 2)
        codes = []
        for codebook in self._codebooks()[:books]:
            code = codebook.nearest(left)
            left = left - F.embedding(code, codebook.embed).to(left.dtype)
            codes.append(code)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """`(B, books, T)` to `(B, C, T)`."""
        found = [
            F.embedding(codes[:, k], book.embed) for k, book in enumerate(self._codebooks()[: codes.shape[1]])
        ]
        x = torch.stack(found).sum(0).transpose(1, 2)
        return x if self.output_proj is None else self.output_proj(x.to(self.output_proj.weight.dtype))


class SplitQuantizer(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self._semantic = config.semantic
        self.semantic_residual_vector_quantizer = ResidualQuantizer(config, config.semantic)
        self.acoustic_residual_vector_quantizer = ResidualQuantizer(
            config, config.quantizers - config.semantic
        )

    def encode(self, x: Tensor, books: int) -> Tensor:
        """`(B, C, T)` to `(B, books, T)`."""
        codes = self.semantic_residual_vector_quantizer.encode(x, min(books, self._semantic))
        codes += self.acoustic_residual_vector_quantizer.encode(x, books - len(codes))
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """`(B, books, T)` to `(B, C, T)`."""
        x = self.semantic_residual_vector_quantizer.decode(codes[:, : self._semantic])
        if codes.shape[1] > self._semantic:
            x = x + self.acoustic_residual_vector_quantizer.decode(codes[:, self._semantic :])
        return x
