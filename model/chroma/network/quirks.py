"""What the official release does by accident or by its library's version, each a switch with its reason.

`OFFICIAL` is what goldens were made with and what `verify` runs; `SERVING` is what calls get. They differ
only where the model's sound does not come to depend on the accident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Quirks:
    decoder_starts_twice: bool
    """The decoder's first two inputs both have RoPE position 0 (then 1, 2, …), where its training code
    counts 0 to 7. It changes every frame, so it is kept for serving too until somebody hears the other."""
    codec_forgets: bool
    """Mimi attends to its window of 250 positions (10 s) only, as it was trained. The official release's
    library (transformers 5.0.0rc0) ignores the window; the two differ from frame 125 on."""
    draws_any_id: bool
    """Ids at or above the codebook size can be drawn, and are then clamped. They are no sound: masked
    when serving."""
    first_codebook_ignores_top_p: bool
    """The official sampler never applies top-p to codebook 0."""


OFFICIAL: Final = Quirks(
    decoder_starts_twice=True, codec_forgets=False, draws_any_id=True, first_codebook_ignores_top_p=True
)
SERVING: Final = Quirks(
    decoder_starts_twice=True, codec_forgets=True, draws_any_id=False, first_codebook_ignores_top_p=False
)
