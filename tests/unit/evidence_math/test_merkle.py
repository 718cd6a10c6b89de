# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Sequence
from functools import cache

import pytest

from cloister.evidence.errors import ForkError, FormatError, RollbackError, TamperedError
from cloister.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_path,
    consistency_proof,
    inclusion_path,
    inclusion_proof,
    leaf_hash,
    root_hash,
    subtree_reader,
    verify_consistency,
    verify_inclusion,
)

CT_LEAVES = [
    leaf_hash(bytes.fromhex(text))
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
LARGEST = 128
LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(LARGEST)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@cache
def naive_root(start: int, end: int) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word; shares nothing with the module under test."""
    if end == start:
        return sha256(b"")
    if end - start == 1:
        return sha256(b"\x00" + start.to_bytes(2, "big"))
    split = start + naive_split(end - start)
    return sha256(b"\x01" + naive_root(start, split) + naive_root(split, end))


def naive_split(width: int) -> int:
    split = 1
    while split * 2 < width:
        split *= 2
    return split


def naive_path(index: int, start: int, end: int) -> list[bytes]:
    """PATH of RFC 9162, 2.1.3.1."""
    if end - start == 1:
        return []
    split = naive_split(end - start)
    if index < split:
        return [*naive_path(index, start, start + split), naive_root(start + split, end)]
    return [*naive_path(index - split, start + split, end), naive_root(start, start + split)]


def naive_subproof(old: int, start: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162, 2.1.4.1."""
    if old == end - start:
        return [] if known else [naive_root(start, end)]
    split = naive_split(end - start)
    if old <= split:
        return [*naive_subproof(old, start, start + split, known=known), naive_root(start + split, end)]
    return [
        *naive_subproof(old - split, start + split, end, known=False),
        naive_root(start, start + split),
    ]


def naive_consistency(old: int, new: int) -> list[bytes]:
    return [] if old in {0, new} else naive_subproof(old, 0, new, known=True)


def flipped(hashes: Sequence[bytes], at: int) -> list[bytes]:
    return [*hashes[:at], bytes([hashes[at][0] ^ 1]) + hashes[at][1:], *hashes[at + 1 :]]


def test_the_published_tree_has_the_published_root() -> None:
    """Eight leaves of the Certificate Transparency test tree lead to its known root."""
    expected = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert expected == root_hash(CT_LEAVES).hex()


def test_all_roots_equal_the_definition() -> None:
    """The root of every size up to 128 is the one that the recursive definition gives."""
    assert [naive_root(0, n) for n in range(LARGEST + 1)] == [root_hash(LEAVES[:n]) for n in range(LARGEST + 1)]


def test_all_inclusion_proofs_equal_the_definition_and_verify() -> None:
    """Every leaf of every tree up to 128 leaves has the defined proof, and it verifies."""
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof = inclusion_path(index, size, naive_root)
            assert naive_path(index, 0, size) == proof
            verify_inclusion(LEAVES[index], index, size, proof, naive_root(0, size))


def test_all_consistency_proofs_equal_the_definition_and_verify() -> None:
    """Every pair of sizes up to 128 has the defined proof, and it verifies."""
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            proof = consistency_path(old, new, naive_root)
            assert naive_consistency(old, new) == proof
            verify_consistency(old, naive_root(0, old), new, naive_root(0, new), proof)


def test_proofs_from_memory_equal_proofs_from_subtrees() -> None:
    """The list form of the generators gives the same proofs as the form over a subtree function."""
    assert inclusion_path(37, 100, naive_root) == inclusion_proof(LEAVES, 37, 100)
    assert consistency_path(37, 100, naive_root) == consistency_proof(LEAVES, 37, 100)


def test_stored_complete_subtrees_serve_every_proof() -> None:
    """The hashes that appending completes, kept by level and index, are all that proofs ever need."""
    stored: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for size, leaf in enumerate(LEAVES):
        frontier, completed = frontier.append_nodes(leaf)
        stored |= {(level, size >> level): value for level, value in enumerate(completed)}
    read = subtree_reader(lambda level, index: stored[level, index])
    for new in range(1, LARGEST + 1):
        for old in range(new):
            assert naive_consistency(old, new) == consistency_path(old, new, read)
            assert naive_path(old, 0, new) == inclusion_path(old, new, read)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 13])
def test_any_change_breaks_an_inclusion_proof(size: int) -> None:
    """A changed leaf, root, index, hash or number of hashes is refused."""
    root = naive_root(0, size)
    for index in range(size):
        proof = naive_path(index, 0, size)
        bad = [
            (LEAVES[index], proof, sha256(root)),
            (LEAVES[index + 1], proof, root),
            (LEAVES[index], [*proof, root], root),
            *((LEAVES[index], flipped(proof, at), root) for at in range(len(proof))),
            *((LEAVES[index], proof[:-1], root) for _ in proof[:1]),
        ]
        for leaf, hashes, head in bad:
            with pytest.raises(TamperedError):
                verify_inclusion(leaf, index, size, hashes, head)
        for other in set(range(size)) - {index}:
            with pytest.raises(TamperedError):
                verify_inclusion(LEAVES[index], other, size, proof, root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 7), (6, 8), (7, 13), (8, 13)])
def test_any_change_breaks_a_consistency_proof(old: int, new: int) -> None:
    """A changed root or hash is a fork; a wrong number of hashes is tampering."""
    roots = naive_root(0, old), naive_root(0, new)
    proof = naive_consistency(old, new)
    for bad_roots in ((sha256(roots[0]), roots[1]), (roots[0], sha256(roots[1]))):
        with pytest.raises(ForkError):
            verify_consistency(old, bad_roots[0], new, bad_roots[1], proof)
    for at in range(len(proof)):
        with pytest.raises(ForkError):
            verify_consistency(old, roots[0], new, roots[1], flipped(proof, at))
    for hashes in (proof[:-1], [*proof, roots[0]]):
        with pytest.raises(TamperedError):
            verify_consistency(old, roots[0], new, roots[1], hashes)


def test_a_shrunken_tree_is_a_rollback() -> None:
    """A new tree smaller than the known one is refused, whatever the proof."""
    with pytest.raises(RollbackError):
        verify_consistency(8, naive_root(0, 8), 7, naive_root(0, 7), [])


def test_equal_sizes_need_equal_roots() -> None:
    """Two roots for one size are a fork."""
    with pytest.raises(ForkError):
        verify_consistency(8, naive_root(0, 8), 8, naive_root(1, 9), [])


def test_the_empty_tree_leads_to_every_tree() -> None:
    """From no leaves the proof is empty, and the known root must be that of the empty tree."""
    verify_consistency(0, EMPTY_ROOT, 5, naive_root(0, 5), [])
    with pytest.raises(ForkError):
        verify_consistency(0, naive_root(0, 1), 5, naive_root(0, 5), [])
    with pytest.raises(TamperedError):
        verify_consistency(0, EMPTY_ROOT, 5, naive_root(0, 5), [EMPTY_ROOT])


def test_indices_outside_the_tree_are_refused() -> None:
    """Generators and verifiers refuse a leaf or size that the tree does not have."""
    refused = [
        lambda: inclusion_proof(LEAVES, 5, 5),
        lambda: inclusion_proof(LEAVES, -1, 5),
        lambda: inclusion_proof(LEAVES, 0, LARGEST + 1),
        lambda: consistency_proof(LEAVES, 6, 5),
        lambda: verify_inclusion(LEAVES[0], 1, 1, [], LEAVES[0]),
        lambda: verify_inclusion(b"short", 0, 1, [], LEAVES[0]),
        lambda: verify_consistency(-1, EMPTY_ROOT, 1, LEAVES[0], []),
    ]
    for action in refused:
        with pytest.raises(FormatError):
            action()


def test_the_frontier_survives_serialisation() -> None:
    """A frontier read back from its bytes continues the same tree."""
    frontier = Frontier()
    for size, leaf in enumerate(LEAVES):
        frontier = Frontier.from_bytes(frontier.append(leaf).to_bytes())
        assert naive_root(0, size + 1) == frontier.root()


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(7) + b"\x01", bytes(8 + 32), bytes(8) + b"x"])
def test_malformed_frontiers_are_refused(data: bytes) -> None:
    """Bytes whose hashes do not fit the size are no frontier."""
    with pytest.raises(FormatError):
        Frontier.from_bytes(data)
