# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 9162, section 2.1: hashes, proofs and their verification.

All hashes are 32 bytes of SHA-256; "leaf" below always means the *hash* of a leaf.
A tree of n > 1 leaves splits at the largest power of two below n.
Nothing here keeps state: `Frontier` is a value, and proofs read subtree hashes through a function.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloister.evidence.errors import ForkError, FormatError, RollbackError, TamperedError

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]
"""(start, end) -> root of the leaves start..end-1."""

HashAt = Callable[[int, int], bytes]
"""(level, index) -> hash of the complete subtree over leaves index*2**level .. (index+1)*2**level - 1."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry's bytes as a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an interior node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes; the empty tree has the root SHA-256("")."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    return frontier.root()


def subtree_reader(hash_at: HashAt) -> Subtree:
    """Turn a store of complete subtrees (a table, tiles) into the `subtree` argument of the path functions.

    Ranges asked for by the path functions begin at a multiple of their own largest power of two,
    so every piece of the split is complete and aligned except the last, which is split again.
    """

    def read(start: int, end: int) -> bytes:
        width = end - start
        if width & (width - 1) == 0:
            return hash_at(width.bit_length() - 1, start // width)
        middle = start + _split(width)
        return node_hash(read(start, middle), read(middle, end))

    return read


def inclusion_path(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves (RFC 9162, 2.1.3.1), lowest sibling first."""
    if not 0 <= index < size:
        raise FormatError(f"inclusion proof: leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    path.reverse()
    return path


def consistency_path(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Proof that the tree of `new` leaves extends the tree of `old` leaves (RFC 9162, 2.1.4.1).

    Empty for old == 0 and for old == new.
    """
    if not 0 <= old <= new:
        raise FormatError(f"consistency proof: cannot lead from {old} to {new} leaves")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end = 0, new
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    if start:
        # At start == 0 this hash is the old root itself, which the verifier knows.
        path.append(subtree(start, old))
    path.reverse()
    return path


def inclusion_proof(leaves: Sequence[bytes], index: int, size: int) -> list[bytes]:
    """`inclusion_path` over leaf hashes in memory; uses the first `size` of them."""
    return inclusion_path(index, size, _in_memory(leaves, size))


def consistency_proof(leaves: Sequence[bytes], old: int, new: int) -> list[bytes]:
    """`consistency_path` over leaf hashes in memory; uses the first `new` of them."""
    return consistency_path(old, new, _in_memory(leaves, new))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is number `index` in the tree (size, root): RFC 9162, 2.1.3.2.

    Raises FormatError for an index outside the tree or hashes of the wrong length, TamperedError otherwise.
    """
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size:
        raise FormatError(f"inclusion proof: leaf {index} is not in a tree of {size} leaves")
    sides = _siblings_on_left(index, size - 1)
    if len(proof) != len(sides):
        raise TamperedError(f"inclusion proof of leaf {index} in {size}: {len(proof)} hashes instead of {len(sides)}")
    computed = leaf
    for sibling, on_left in zip(proof, sides, strict=True):
        computed = node_hash(sibling, computed) if on_left else node_hash(computed, sibling)
    if computed != root:
        raise TamperedError(f"inclusion proof of leaf {index} in {size} leads to {computed.hex()}, not {root.hex()}")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (new_size, new_root) extends (old_size, old_root): RFC 9162, 2.1.4.2.

    Raises RollbackError if new_size < old_size, TamperedError for a proof of the wrong length,
    ForkError if the proof does not connect the two roots.
    """
    _check_hashes([old_root, new_root, *proof])
    if old_size < 0:
        raise FormatError(f"consistency proof: {old_size} is not a tree size")
    if new_size < old_size:
        raise RollbackError(f"consistency proof: the tree went back from {old_size} to {new_size} leaves")
    if old_size in (0, new_size):
        _verify_trivial(old_size, old_root, new_size, new_root, proof)
        return
    # An old tree of 2**k leaves is a node of the new one: the proof leaves out what the verifier knows.
    hashes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    trailing_ones = (old_size & -old_size).bit_length() - 1
    sides = _siblings_on_left((old_size - 1) >> trailing_ones, (new_size - 1) >> trailing_ones)
    if len(hashes) != len(sides) + 1:
        raise TamperedError(
            f"consistency proof from {old_size} to {new_size}: {len(proof)} hashes are not the right number"
        )
    old = new = hashes[0]
    for sibling, on_left in zip(hashes[1:], sides, strict=True):
        if on_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root or new != new_root:
        raise ForkError(f"the tree of {new_size} leaves does not extend the known tree of {old_size} leaves")


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the complete subtrees of a tree, largest first: enough to append and to give the root.

    size   leaves so far
    nodes  one 32-byte hash per set bit of `size`
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise FormatError(f"frontier: {len(self.nodes)} hashes do not fit a tree of {self.size} leaves")
        _check_hashes(self.nodes)

    def append(self, leaf: bytes) -> "Frontier":
        """The frontier with one leaf hash more."""
        return self.append_nodes(leaf)[0]

    def append_nodes(self, leaf: bytes) -> tuple["Frontier", tuple[bytes, ...]]:
        """`append`, and the hashes that this leaf completes.

        Element `level` of the second value is the hash at (level, size >> level) in the sense of `HashAt`:
        what a store must keep in order to serve every proof later.
        """
        completed = [leaf]
        nodes = list(self.nodes)
        size = self.size
        while size & 1:
            completed.append(node_hash(nodes.pop(), completed[-1]))
            size >>= 1
        return Frontier(self.size + 1, (*nodes, completed[-1])), tuple(completed)

    def root(self) -> bytes:
        """The root of the tree."""
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1]
        for node in reversed(self.nodes[:-1]):
            root = node_hash(node, root)
        return root

    def to_bytes(self) -> bytes:
        """Size as 8 bytes big-endian, then the hashes."""
        return self.size.to_bytes(8, "big") + b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Frontier":
        """Inverse of `to_bytes`; raises FormatError."""
        if len(data) < 8 or (len(data) - 8) % HASH_SIZE:
            raise FormatError(f"frontier: {len(data)} bytes are not 8 + n * {HASH_SIZE}")
        nodes = tuple(data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE))
        return cls(int.from_bytes(data[:8], "big"), nodes)


def _verify_trivial(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise TamperedError(f"consistency proof from {old_size} to {new_size}: it must be empty")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ForkError("the known tree claims no leaves, but its root is not that of the empty tree")
    if old_size == new_size and old_root != new_root:
        raise ForkError(f"two different roots for the same {new_size} leaves")


def _split(width: int) -> int:
    """Largest power of two below `width` (width > 1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _siblings_on_left(node: int, last: int) -> list[bool]:
    """For each step of a proof from `node` to the root, whether the sibling stands on the left.

    `last` is the last node of the same level; a node that ends its level has no sibling there and rises.
    """
    sides: list[bool] = []
    while last:
        on_left = bool(node & 1) or node == last
        sides.append(on_left)
        if on_left and node:
            rise = (node & -node).bit_length() - 1
            node, last = node >> rise, last >> rise
        node, last = node >> 1, last >> 1
    return sides


def _in_memory(leaves: Sequence[bytes], size: int) -> Subtree:
    if size > len(leaves):
        raise FormatError(f"proof: a tree of {size} leaves is asked for, {len(leaves)} are known")
    return lambda start, end: root_hash(leaves[start:end])


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise FormatError(f"Merkle hash: {len(value)} bytes instead of {HASH_SIZE}")
