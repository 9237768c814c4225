"""Merkle trees of RFC 9162 section 2.1 with SHA-384: root, inclusion proof, consistency proof.

    leaf = SHA-384(0x00 || bytes)      node = SHA-384(0x01 || left || right)

A tree of n leaves is the largest perfect tree that is smaller than n, and the tree of the rest. Its
**peaks** are the roots of the perfect trees it is made of, from left to right, one for each bit of
n: with them alone more leaves can be added and the root be computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from edgekit.errors import AuditFormatError

DIGEST_BYTES = 48
MAX_PROOF = 130


def leaf_hash(data: bytes) -> bytes:
    """The leaf of some bytes."""
    return hashlib.sha384(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above two subtrees."""
    return hashlib.sha384(b"\x01" + left + right).digest()


class Tree:
    """A tree that leaves are added to; holds its size and its peaks, at most 63 hashes."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Continue from a size and its peaks. Raises AuditFormatError when they do not belong."""
        if len(peaks) != size.bit_count() or any(len(peak) != DIGEST_BYTES for peak in peaks):
            raise AuditFormatError("the peaks of a tree do not fit its size", found=str(size))
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    def peaks(self) -> tuple[bytes, ...]:
        """The peaks, from left to right."""
        return tuple(self._peaks)

    def copy(self) -> Tree:
        """A tree to go on with while this one stays."""
        return Tree(self._size, self._peaks)

    def add(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        size, peaks, sha384 = self._size, self._peaks, hashlib.sha384
        while size & 1:
            leaf = sha384(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self._size += 1

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaf hashes, in their order: level by level, each of it in one go."""
        if len(leaves) == 1:
            self.add(leaves[0])
            return
        nodes, width, right, sha384 = list(leaves), self._size, [], hashlib.sha384
        while nodes:
            if width & 1:
                nodes.insert(0, self._peaks.pop())
            if len(nodes) & 1:
                right.append(nodes.pop())
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [sha384(b"\x01" + left + other).digest() for left, other in pairs]
            width >>= 1
        self._peaks.extend(reversed(right))
        self._size += len(leaves)

    def root(self) -> bytes:
        """The tree's root; SHA-384 of nothing for an empty tree."""
        if not self._peaks:
            return hashlib.sha384(b"").digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


class Prover:
    """Makes proofs from leaf hashes. What lies before them is known by its peaks alone.

    Memory is one hash per leaf; a proof costs as many hashes as there are leaves.
    """

    def __init__(
        self, base_size: int, base_peaks: Sequence[bytes], leaves: Sequence[bytes]
    ) -> None:
        self._base = Tree(base_size, base_peaks)
        self._known: dict[tuple[int, int], bytes] = {}
        low = 0
        for peak, width in zip(base_peaks, _widths(base_size), strict=True):
            self._known[low, low + width] = peak
            low += width
        self._leaves = leaves

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The path of leaf `index` (from 0) in the tree of `size` leaves."""
        return self._path(index, 0, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the tree of `old` leaves is the beginning of the tree of `new` ones."""
        if old in (0, new):
            return []
        return self._subproof(old, 0, new, complete=True)

    def _hash(self, low: int, high: int) -> bytes:
        if (known := self._known.get((low, high))) is not None:
            return known
        if low < self._base.size and (high - low) == 1:
            raise AuditFormatError(
                "the records that this proof needs are not in this log",
                found=f"records from {self._base.size + 1}",
                needed=f"record {low + 1}",
            )
        if high - low == 1:
            return self._leaves[low - self._base.size]
        if low >= self._base.size:
            tree = Tree()
            for leaf in self._leaves[low - self._base.size : high - self._base.size]:
                tree.add(leaf)
            return tree.root()
        middle = low + _split(high - low)
        return node_hash(self._hash(low, middle), self._hash(middle, high))

    def _path(self, index: int, low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = low + _split(high - low)
        if index < middle:
            return [*self._path(index, low, middle), self._hash(middle, high)]
        return [*self._path(index, middle, high), self._hash(low, middle)]

    def _subproof(self, old: int, low: int, high: int, *, complete: bool) -> list[bytes]:
        if old == high:
            return [] if complete else [self._hash(low, high)]
        middle = low + _split(high - low)
        if old <= middle:
            proof = self._subproof(old, low, middle, complete=complete)
            return [*proof, self._hash(middle, high)]
        proof = self._subproof(old, middle, high, complete=False)
        return [*proof, self._hash(low, middle)]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2).

    Compare it with the signed one. Raises AuditFormatError for a path of the wrong length.
    """
    if not 0 <= index < size:
        raise AuditFormatError("a proof names a record outside its tree", found=str(index))
    node, last, root = index, size - 1, leaf
    for hash_ in path:
        if last == 0:
            raise AuditFormatError("an inclusion proof is too long")
        if node & 1 or node == last:
            root = node_hash(hash_, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, hash_)
        node, last = node >> 1, last >> 1
    if last:
        raise AuditFormatError("an inclusion proof is too short")
    return root


def roots_from_consistency(
    old: int, new: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The two roots, older and newer, that a consistency proof leads to (section 2.1.4.2).

    Compare both with the signed ones. Raises AuditFormatError for a proof of the wrong length.
    """
    if not 0 < old < new:
        raise AuditFormatError("a consistency proof needs two trees", found=f"{old} and {new}")
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    if not path:
        raise AuditFormatError("a consistency proof is too short")
    first = second = path[0]
    for hash_ in path[1:]:
        if last == 0:
            raise AuditFormatError("a consistency proof is too long")
        if node & 1 or node == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, hash_)
        node, last = node >> 1, last >> 1
    if last:
        raise AuditFormatError("a consistency proof is too short")
    return first, second


def _widths(size: int) -> list[int]:
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)
