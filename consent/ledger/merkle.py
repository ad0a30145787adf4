"""Merkle tree hashes (RFC 9162 §2.1.1) over SHA-256: one hash that vouches for many, in their order.

Leaves and nodes are hashed with different first bytes, so that no node can pass for a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(entry: bytes) -> str:
    """A leaf's hash, in hexadecimal."""
    return hashlib.sha256(b"\0" + entry).hexdigest()


def tree_hash(leaves: Sequence[str]) -> str:
    """The root over leaf hashes (hexadecimal, as `leaf_hash` gives them), in hexadecimal.

    Raises `ValueError` for what is not a leaf's hash.
    """
    level = [bytes.fromhex(leaf) for leaf in leaves]
    if any(len(leaf) != hashlib.sha256().digest_size for leaf in level):
        raise ValueError("a leaf's hash has 32 bytes")
    if not level:
        return hashlib.sha256(b"").hexdigest()
    # Pairs from the left, an odd one out moved up as it is: the same tree as splitting at powers of two.
    while len(level) > 1:
        pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) & ~1 :]
    return level[0].hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
