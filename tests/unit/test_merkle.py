"""RFC 9162 trees: the recursive definition, and every proof for every tree up to a size."""

from __future__ import annotations

import hashlib

import pytest

from edgekit.core.merkle import (
    Prover,
    Tree,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    roots_from_consistency,
)
from edgekit.errors import AuditFormatError

LEAVES = [leaf_hash(b"%d" % number) for number in range(40)]


def defined_root(leaves: list[bytes]) -> bytes:
    """Section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha384(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


def grown(size: int) -> Tree:
    tree = Tree()
    for leaf in LEAVES[:size]:
        tree.add(leaf)
    return tree


def test_root_is_the_defined_one() -> None:
    for size in range(len(LEAVES) + 1):
        assert grown(size).root() == defined_root(LEAVES[:size])


def test_tree_goes_on_from_its_peaks() -> None:
    for size in range(30):
        tree = Tree(size, grown(size).peaks())
        for leaf in LEAVES[size:]:
            tree.add(leaf)
        assert tree.root() == defined_root(LEAVES)


def test_many_leaves_at_once_are_the_same_tree() -> None:
    for size in range(len(LEAVES) + 1):
        for middle in range(size + 1):
            tree = grown(middle)
            tree.extend(LEAVES[middle:size])
            assert (tree.size, tree.peaks()) == (size, grown(size).peaks())


def test_peaks_of_another_size_are_refused() -> None:
    for size, peaks in ((3, grown(4).peaks()), (1, (b"short",)), (0, grown(1).peaks())):
        with pytest.raises(AuditFormatError):
            Tree(size, peaks)


@pytest.mark.parametrize("base", [0, 1, 5, 8, 13])
def test_every_inclusion_proof_leads_to_the_root_and_no_other_leaf_does(base: int) -> None:
    prover = Prover(base, grown(base).peaks(), LEAVES[base:])
    for size in range(base + 1, 25):
        root = defined_root(LEAVES[:size])
        for index in range(base, size):
            path = prover.inclusion(index, size)
            assert root_from_inclusion(LEAVES[index], index, size, path) == root
            assert root_from_inclusion(LEAVES[index - 1], index, size, path) != root
            for wrong in (path[:-1], [*path, bytes(48)]):
                if wrong != path:
                    with pytest.raises(AuditFormatError):
                        root_from_inclusion(LEAVES[index], index, size, wrong)


def test_record_before_the_base_cannot_be_proven() -> None:
    with pytest.raises(AuditFormatError, match="not in this log"):
        Prover(5, grown(5).peaks(), LEAVES[5:]).inclusion(2, 20)


def test_every_consistency_proof_leads_to_both_roots() -> None:
    prover = Prover(0, (), LEAVES)
    for new in range(2, 40):
        for old in range(1, new):
            proof = prover.consistency(old, new)
            old_root, new_root = defined_root(LEAVES[:old]), defined_root(LEAVES[:new])
            assert roots_from_consistency(old, new, old_root, proof) == (old_root, new_root)
            if proof:
                bent = [bytes(48), *proof[1:]]
                assert roots_from_consistency(old, new, old_root, bent) != (old_root, new_root)
                with pytest.raises(AuditFormatError):
                    roots_from_consistency(old, new, old_root, proof[:-1])


def test_consistency_from_a_later_base() -> None:
    prover = Prover(8, grown(8).peaks(), LEAVES[8:])
    proof = prover.consistency(12, 30)
    roots = defined_root(LEAVES[:12]), defined_root(LEAVES[:30])
    assert roots_from_consistency(12, 30, roots[0], proof) == roots
