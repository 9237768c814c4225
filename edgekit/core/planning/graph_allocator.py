"""How ggml lays the tensors of a graph into one buffer, step by step. Pure.

A buffer is as large as the engine's allocator makes it, and that depends on which hole a tensor
falls into; so the allocator is followed exactly. Source: llama.cpp ggml/src/ggml-alloc.c as of
b11549 (ggml_dyn_tallocr_alloc, ggml_dyn_tallocr_free_bytes, ggml_gallocr_alloc_graph_impl) for a
backend with one buffer of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ALIGNMENT = 32
"""Bytes to which the CPU backend aligns tensors."""


@dataclass(slots=True)
class _Tensor:
    size: int
    sources: tuple[int, ...] = ()
    in_place: bool = False
    layout: int = 0
    root: int | None = None
    """Of a view, the tensor whose bytes it shows."""
    is_input: bool = False
    offset: int | None = None
    children: int = 0
    views: int = 0


class _Holes:
    """Free blocks of the buffer in the order of their offsets; the last one has no end."""

    def __init__(self) -> None:
        self.blocks: list[list[int]] = [[0, 1 << 62]]
        self.peak = 0

    def take(self, size: int) -> int:
        """Offset for `size` bytes: the tightest hole, else the end."""
        best = None
        for index in range(len(self.blocks) - 1):
            room = self.blocks[index][1]
            if room >= size and (best is None or room <= self.blocks[best][1]):
                best = index
        index = len(self.blocks) - 1 if best is None else best
        block = self.blocks[index]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del self.blocks[index]
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Make bytes free again; neighbours become one block."""
        index = 0
        while index < len(self.blocks) and self.blocks[index][0] < offset:
            index += 1
        self.blocks.insert(index, [offset, size])
        for left in (index, index - 1):
            if 0 <= left < len(self.blocks) - 1:
                one, two = self.blocks[left], self.blocks[left + 1]
                if one[0] + one[1] == two[0]:
                    one[1] += two[1]
                    del self.blocks[left + 1]


@dataclass
class Graph:
    """Tensors in the order the engine computes them. Weights and caches are no part of it."""

    tensors: list[_Tensor] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def input(self, size: int) -> int:
        """A tensor that is filled before the graph runs; it lives from the start to its last use.

        One that no node reads lives to the end.
        """
        self.tensors.append(_Tensor(size, is_input=True))
        return len(self.tensors) - 1

    def node(self, size: int, *sources: int, in_place: bool = False, layout: int = 0) -> int:
        """A computed tensor of `size` bytes.

        `in_place` says that its operation may write over a source of the same size and `layout`.
        """
        self.tensors.append(_Tensor(size, sources, in_place, layout))
        return self._ordered()

    def view(self, source: int, *others: int) -> int:
        """Another way to read a tensor, or (with `others`) an operation that writes into it."""
        root = self.tensors[source].root
        owner = source if root is None else root
        self.tensors.append(_Tensor(self.tensors[source].size, (*others, source), root=owner))
        return self._ordered()

    def sink(self, *sources: int) -> int:
        """A node that writes into something outside, such as the cache."""
        return self.node(0, *sources)

    def _ordered(self) -> int:
        self.order.append(len(self.tensors) - 1)
        return len(self.tensors) - 1

    def buffer_bytes(self) -> int:
        """Bytes of the buffer that holds the whole graph."""
        holes = _Holes()
        tensors = self.tensors
        for tensor in tensors:
            if tensor.is_input:
                tensor.offset = holes.take(_aligned(tensor.size))
            if tensor.root is not None:
                tensors[tensor.root].views += 1
            for source in tensor.sources:
                tensors[source].children += 1
        for number in self.order:
            tensor = tensors[number]
            if tensor.root is None and tensor.size:
                self._place(tensor, holes)
            for source in tensor.sources:
                self._release(tensors[source], holes)
        return holes.peak

    def _place(self, tensor: _Tensor, holes: _Holes) -> None:
        if tensor.in_place:
            for source in tensor.sources:
                parent = self.tensors[source]
                same = (parent.size, parent.layout) == (tensor.size, tensor.layout)
                owned = parent.offset is not None and parent.root is None
                if owned and same and parent.children == 1 and parent.views == 0:
                    tensor.offset, parent.offset = parent.offset, None
                    return
        tensor.offset = holes.take(_aligned(tensor.size))

    def _release(self, tensor: _Tensor, holes: _Holes) -> None:
        tensor.children -= 1
        if tensor.children or tensor.views:
            return
        owner = tensor
        if tensor.root is not None:
            owner = self.tensors[tensor.root]
            owner.views -= 1
            if owner.views or owner.children:
                return
        if owner.offset is not None:
            holes.give(owner.offset, _aligned(owner.size))
            owner.offset = None


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
