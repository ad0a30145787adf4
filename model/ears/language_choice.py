"""Which language a caller is taken to speak, of those that lead somewhere, and when that is left open.

Who is led wrongly hears a language that they do not speak; who is not led is asked again, or stays where they
are. So a language has to be far likelier than the others that lead somewhere. One that leads nowhere does not
count against one that is near to it (Spanish is taken for Galician), unless it is much likelier than all that
do lead somewhere: then the caller is a stranger here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SURE: Final = 0.95
"""The least share of the chance of all languages that lead somewhere (`benchmarks.languages --tune`)."""
LEAST: Final = 0.2
"""The least chance of all of these together: what hardly sounds like any of them is left open."""
STRANGER: Final = 10.0
"""So many times likelier than all of them, and it is another language."""
LIKELY: Final = 0.5
"""The least chance of such a language: noise has none."""


def chosen(found: Sequence[tuple[str, float]], among: Sequence[str]) -> tuple[str, float]:
    """(language, chance) by what a model found: one of `among`, another one, or empty when that is open.

    `found`: each language with its chance, the likeliest first. Without `among` it is the first one.
    """
    if not found or not among:
        return found[0] if found else ("", 0.0)
    led = [(name, chance) for name, chance in found if name in among]
    others = [(name, chance) for name, chance in found if name not in among]
    total = sum(chance for _, chance in led)
    if others and others[0][1] >= max(LIKELY, STRANGER * total):
        return others[0]
    share = led[0][1] / total if total > 0 else 0.0
    return (led[0][0] if share >= SURE and total >= LEAST else "", share)
