"""llama.cpp's graphs by kind of layer, tensor by tensor, in the order they are computed. Pure.

Source: llama.cpp src/llama-graph.cpp (build_attn, build_ffn, build_moe_ffn) and src/models/*.cpp as
of b11549, read and compared with what the engine lists under GGML_SCHED_DEBUG=2.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.planning.graph_allocator import Graph

FLOAT = 4
HALF = 2
INDEX = 8


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What a layer's graph depends on; widths in elements. Zero where a layer has no such part.

    `mask` are the cells its attention looks at; layers with a window have a cache of their own
    (`windowed`), and in models with such layers keys come before values (`keys_first`).
    `key_turn` and `value_turn` are the sizes of the matrices that rotate what goes into a quantised
    cache. `norms` are per-head norms of queries and keys,
    `bias` additions after them, `post_norms` norms after attention and MLP, `fused` one
    matrix for queries, keys and values; with an `early_router` experts are chosen by the layer's
    input. Without `flash` attention the scores of all heads are laid out, with `soft_cap` through a
    hyperbolic tangent. `state` are numbers per user of a recurrent mixer, `inner` its width.
    """

    mask: int = 0
    flash: bool = True
    soft_cap: bool = False
    windowed: bool = False
    keys_first: bool = False
    key_turn: int = 0
    value_turn: int = 0
    queries: int = 0
    key_row: int = 0
    value_row: int = 0
    ffn: int = 0
    experts: int = 0
    used: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    norms: bool = False
    bias: bool = False
    post_norms: bool = False
    early_router: bool = False
    fused: bool = False
    query_rank: int = 0
    latent_rank: int = 0
    rope_width: int = 0
    latent_queries: int = 0
    heads: int = 0
    mixer: str = ""
    inner: int = 0
    inner_state: int = 0
    inner_groups: int = 0
    inner_heads: int = 0
    inner_taps: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens in one step, people they belong to, and how many of the tokens have an answer."""

    tokens: int
    people: int
    outputs: int


def graph_bytes(
    layers: tuple[LayerKind, ...],
    *,
    width: int,
    vocabulary: int,
    batch: Batch,
    scaled: bool,
    mixes: bool = True,
) -> int:
    """Bytes of the buffer for a whole model; `scaled` when embeddings are scaled first.

    `mixes` of builds whose batches may hold tokens and vectors at once.
    """
    builder = _Builder(width, batch)
    current = builder.embeddings(scaled=scaled, mixes=mixes)
    for number, layer in enumerate(layers):
        current = builder.layer(layer, current, is_last=number == len(layers) - 1)
    builder.output(current, vocabulary)
    return builder.graph.buffer_bytes()


class _Builder:
    def __init__(self, width: int, batch: Batch) -> None:
        self.graph = Graph()
        self._width = width
        self._batch = batch
        self._rows = batch.tokens
        self._masks: dict[bool, int] = {}
        self._places: dict[bool, tuple[int, int]] = {}
        self._turns: dict[tuple[str, bool], int] = {}
        self._input = 0
        self._routed: tuple[int, int] | None = None
        self._positions: int | None = None
        self._chosen: int | None = None
        self._states: int | None = None

    def _row(self, elements: int, *sources: int, in_place: bool = False, layout: int = 0) -> int:
        """A node of so many floats per token."""
        return self.graph.node(
            FLOAT * elements * self._rows, *sources, in_place=in_place, layout=layout
        )

    def _norm(self, source: int, elements: int, layout: int = 0) -> int:
        """A norm and the product with its weight."""
        norm = self._row(elements, source, in_place=True, layout=layout)
        return self._row(elements, norm, in_place=True, layout=layout)

    def _position(self) -> int:
        if self._positions is None:
            self._positions = self.graph.input(FLOAT * self._batch.tokens)
        return self._positions

    def _mask(self, kind: LayerKind) -> int:
        if kind.windowed not in self._masks:
            size = (HALF if kind.flash else FLOAT) * kind.mask * self._batch.tokens
            self._masks[kind.windowed] = self.graph.input(size)
        return self._masks[kind.windowed]

    def _indices(self, kind: LayerKind) -> tuple[int, int]:
        """Where in a cache the rows of K and of V go; one pair for each cache."""
        if kind.windowed not in self._places:
            # without flash attention values lie transposed, and each element has a place
            each = 1 if kind.flash else kind.value_row
            one = self.graph.input(INDEX * self._batch.tokens)
            two = self.graph.input(INDEX * self._batch.tokens * each)
            self._places[kind.windowed] = (one, two)
        return self._places[kind.windowed]

    def _turned(self, kind: LayerKind, part: str, elements: int, source: int) -> int:
        """Rotated before it goes into a quantised cache, or back after (llama-kv-cache.cpp)."""
        size = kind.key_turn if part == "key" else kind.value_turn
        if not size:
            return source
        place = (part, kind.windowed)
        if place not in self._turns:
            self._turns[place] = self.graph.input(FLOAT * size * size)
        turned = self._row(elements, self._turns[place], self.graph.view(source))
        return self.graph.view(turned)

    def embeddings(self, *, scaled: bool, mixes: bool) -> int:
        """The embedding, and the branch for inputs that are vectors already."""
        tokens = self.graph.input(FLOAT * self._rows)
        self.graph.input(FLOAT * self._width * self._rows)  # for vectors alone; not read here
        if mixes:
            mixed = self.graph.input(FLOAT * self._rows)
            vectors = self.graph.input(FLOAT * self._width * self._rows)
            slots = self.graph.input(INDEX * self._rows)
        embedding = self._row(self._width, tokens)
        if mixes:
            other = self._row(self._width, mixed)
            copy = self._row(self._width, vectors)
            self.graph.view(copy, other, slots)  # nobody reads it here, so it is never given back
        return self._row(self._width, embedding, in_place=True) if scaled else embedding

    def layer(self, kind: LayerKind, current: int, *, is_last: bool) -> int:
        """One layer; the last keeps only the rows that have an answer."""
        self._input = current
        mixed = self._mixer(kind, current)
        if kind.post_norms:
            mixed = self._norm(mixed, self._width)
        if is_last and self._batch.outputs < self._rows:
            mixed, current = self._keep_outputs(mixed, current)
        inner = self._row(self._width, mixed, current, in_place=True)
        if not (kind.ffn or kind.experts):
            return inner
        normed = self._norm(inner, self._width)
        if kind.experts:
            out = self._experts(kind, normed)
        else:
            out = self._mlp(kind.ffn, normed, is_fused=kind.fused)
        if kind.post_norms:
            out = self._norm(out, self._width)
        return self._row(self._width, out, inner, in_place=True)

    def _keep_outputs(self, mixed: int, current: int) -> tuple[int, int]:
        if self._chosen is None:
            self._chosen = self.graph.input(FLOAT * self._batch.outputs)
        self._rows = self._batch.outputs
        return self._row(self._width, mixed, self._chosen), self._row(
            self._width, current, self._chosen
        )

    def _mixer(self, kind: LayerKind, current: int) -> int:
        if kind.mixer == "mamba":
            return self._mamba(kind, current)
        if kind.mixer == "mamba2":
            return self._mamba2(kind, current)
        if kind.mixer == "shortconv":
            return self._short_convolution(kind, current)
        normed = self._norm(current, self._width)
        return self._latent(kind, normed) if kind.latent_rank else self._attention(kind, normed)

    def _attention(self, kind: LayerKind, normed: int) -> int:
        if kind.fused:
            whole = self._row(kind.queries + kind.key_row + kind.value_row, normed)
            query, key, value = (self.graph.view(whole) for _ in range(3))
            query = self._row(kind.queries, query, self._position())
            query = self._row(kind.queries, query, in_place=True)
            key = self._row(kind.key_row, key, self._position())
            return self._attend(kind, query, key, value)
        query = self._projected(kind, kind.queries, normed)
        query = self._turned(kind, "key", kind.queries, query)
        if kind.keys_first:
            key = self._key(kind, normed)
            return self._attend(kind, query, key, self._value(kind, normed))
        value = self._value(kind, normed)
        return self._attend(kind, query, self._key(kind, normed), value)

    def _key(self, kind: LayerKind, normed: int) -> int:
        key = self._projected(kind, kind.key_row, normed)
        return self._turned(kind, "key", kind.key_row, key)

    def _value(self, kind: LayerKind, normed: int) -> int:
        value = self._row(kind.value_row, normed)
        if kind.bias:
            value = self._row(kind.value_row, value, in_place=True)
        return self._turned(kind, "value", kind.value_row, self.graph.view(value))

    def _projected(self, kind: LayerKind, elements: int, normed: int) -> int:
        """Queries or keys: product, addition, view by head, norm, rotation."""
        row = self._row(elements, normed)
        if kind.bias:
            row = self._row(elements, row, in_place=True)
        heads = self.graph.view(row)
        if kind.norms:
            heads = self._norm(heads, elements, layout=1)
        return self._row(elements, heads, self._position(), in_place=True, layout=1)

    def _attend(self, kind: LayerKind, query: int, key: int, value: int | None) -> int:
        indices = self._indices(kind)
        self.graph.sink(self.graph.view(key), indices[0])
        if value is not None:
            self.graph.sink(self.graph.view(value), indices[1])
        by_head = self.graph.view(self.graph.view(query))
        wide = kind.heads * kind.latent_rank if kind.latent_rank else kind.queries
        attended = (
            self._row(wide, by_head, self._mask(kind)) if kind.flash
            else self._scored(kind, wide, by_head)
        )
        if kind.latent_rank:
            out = self._row(kind.queries, self.graph.view(attended))
            out = self._row(kind.queries, self.graph.view(out))
            return self._row(self._width, self.graph.view(out))
        if kind.early_router:
            self._routed = self._route(kind, self._input)
        attended = self._turned(kind, "value", kind.queries, self.graph.view(attended))
        return self._row(self._width, attended)

    def _scored(self, kind: LayerKind, wide: int, query: int) -> int:
        """Attention in its parts: scores of all cells, softmax, product with the values."""
        scores = self._row(kind.mask * kind.heads, query)
        for _ in range(3 if kind.soft_cap else 0):
            scores = self._row(kind.mask * kind.heads, scores, in_place=True)
        scores = self._row(kind.mask * kind.heads, scores, self._mask(kind), in_place=True)
        return self._row(wide, self.graph.view(self._row(wide, scores)))

    def _latent(self, kind: LayerKind, normed: int) -> int:
        """Multi-head latent attention: queries are taken into the space of the compressed rows."""
        query = normed
        if kind.query_rank:
            query = self._norm(self._row(kind.query_rank, normed), kind.query_rank)
        query = self._row(kind.latent_queries, query)
        plain, turned = self.graph.view(query), self.graph.view(query)
        absorbed = self._row(kind.heads * kind.latent_rank, self.graph.view(plain))
        by_head = self.graph.view(absorbed)
        turned = self._row(kind.heads * kind.rope_width, turned, self._position())
        query = self._row(kind.heads * (kind.latent_rank + kind.rope_width), by_head, turned)
        row = self._row(kind.latent_rank + kind.rope_width, normed)
        compressed, key = self.graph.view(row), self.graph.view(row)
        compressed = self._norm(compressed, kind.latent_rank)
        compressed = self.graph.view(self.graph.view(compressed))
        key = self._row(kind.rope_width, key, self._position())
        key = self._row(kind.latent_rank + kind.rope_width, compressed, key)
        return self._attend(kind, query, key, None)

    def _mlp(self, ffn: int, normed: int, *, is_fused: bool = False) -> int:
        if is_fused:
            return self._row(self._width, self._row(ffn, self._row(2 * ffn, normed)))
        gate, up = self._row(ffn, normed), self._row(ffn, normed)
        return self._row(self._width, self._row(ffn, gate, up))

    def _route(self, kind: LayerKind, source: int) -> tuple[int, int]:
        """(which experts, their weights) for every token."""
        logits = self._row(kind.experts, source)
        scores = self._row(kind.experts, logits, in_place=True)
        by_expert = self.graph.view(scores)
        best = self.graph.view(self._row(kind.experts, scores))
        weights = self._row(kind.used, by_expert, best)
        flat = self.graph.view(weights)
        total = self._row(1, flat)
        total = self._row(1, total, in_place=True)
        return best, self.graph.view(self._row(kind.used, flat, total, in_place=True))

    def _experts(self, kind: LayerKind, normed: int) -> int:
        best, weights = self._routed or self._route(kind, normed)
        self._routed = None
        tokens = self.graph.view(normed)
        wide = kind.used * kind.expert_ffn
        up = self._row(wide, tokens, best)
        gate = self._row(wide, tokens, best)
        if kind.bias:
            up, gate = (self._row(wide, t, in_place=True) for t in (up, gate))
        inner = self._row(wide, gate, up)
        down = self._row(kind.used * self._width, inner, best)
        if kind.bias:
            down = self._row(kind.used * self._width, down, in_place=True)
        weighted = self._row(kind.used * self._width, down, weights, in_place=True)
        parts = [self.graph.view(weighted) for _ in range(kind.used)]
        out = parts[0]
        for part in parts[1:]:
            out = self._row(self._width, out, part, in_place=True)
        if kind.shared_ffn:
            shared = self._mlp(kind.shared_ffn, normed)
            out = self._row(self._width, out, shared, in_place=True)
        return out

    def _state(self) -> int:
        if self._states is None:
            self._states = self.graph.input(FLOAT * self._batch.people)
        return self._states

    def _recall(self, elements: int) -> int:
        """A state is read for every person and written back."""
        size = FLOAT * elements * self._batch.people
        taken = self.graph.node(size, self._state())
        return self.graph.view(taken)

    def _mamba(self, kind: LayerKind, current: int) -> int:
        inner, state = kind.inner, kind.inner_state
        people = self._batch.people
        window = self._recall((kind.inner_taps - 1) * inner)
        normed = self._norm(current, self._width)
        whole = self._row(2 * inner, self.graph.view(normed))
        x, z = self.graph.view(whole), self.graph.view(whole)
        padded = self.graph.node(
            FLOAT * inner * (self._rows + (kind.inner_taps - 1) * people),
            self.graph.view(window), self.graph.view(x),
        )
        self.graph.sink(self.graph.view(padded))
        x = self._row(inner, padded)
        x = self._row(inner, x, in_place=True)
        x = self._row(inner, x, in_place=True)
        flat = self.graph.view(x)
        small = self._row(kind.inner_heads + 2 * state, flat)
        rank = self._row(kind.inner_heads, self.graph.view(small))
        step = self._row(inner, rank)
        step = self._row(inner, step, in_place=True)
        b, c = self.graph.view(small), self.graph.view(small)
        scanned = self.graph.node(
            FLOAT * (inner * self._rows + state * inner * people),
            self.graph.view(x), step, b, c, self._state(),
        )
        self.graph.sink(self.graph.view(scanned))
        z = self._row(inner, z)
        skip = self._row(inner, x, in_place=True)
        y = self._row(inner, self.graph.view(scanned), skip, in_place=True)
        y = self._row(inner, z, y)
        return self.graph.view(self._row(self._width, y))

    def _mamba2(self, kind: LayerKind, current: int) -> int:
        inner, state, people = kind.inner, kind.inner_state, self._batch.people
        wide = inner + 2 * kind.inner_groups * state
        window = self._recall((kind.inner_taps - 1) * wide)
        normed = self._norm(current, self._width)
        whole = self._row(inner + wide + kind.inner_heads, normed)
        flat = self.graph.view(whole)
        z, xbc, step = (self.graph.view(flat) for _ in range(3))
        padded = self.graph.node(
            FLOAT * wide * (self._rows + (kind.inner_taps - 1) * people),
            self.graph.view(window), self.graph.view(xbc),
        )
        self.graph.sink(self.graph.view(padded))
        x = self._row(wide, padded)
        x = self._row(wide, x, in_place=True)
        x = self._row(wide, x, in_place=True)
        parts = [self.graph.view(x) for _ in range(3)]
        step = self._row(kind.inner_heads, step)
        step = self._row(kind.inner_heads, step, in_place=True)
        scanned = self.graph.node(
            FLOAT * (inner * self._rows + state * inner * people),
            parts[0], step, parts[1], parts[2], self._state(),
        )
        self.graph.sink(self.graph.view(scanned))
        z = self._row(inner, z)
        skip = self._row(inner, parts[0])
        y = self._row(inner, self.graph.view(scanned), skip, in_place=True)
        y = self._row(inner, z, y)
        y = self._norm(self.graph.view(y), inner, layout=1)
        return self._row(self._width, self.graph.view(y))

    def _short_convolution(self, kind: LayerKind, current: int) -> int:
        width, people = self._width, self._batch.people
        window = self._recall((kind.inner_taps - 1) * width)
        normed = self._norm(current, width)
        whole = self._row(3 * width, self.graph.view(normed))
        b, c, x = (self.graph.view(whole) for _ in range(3))
        mixed = self._row(width, b, x)
        padded = self.graph.node(
            FLOAT * width * (self._rows + (kind.inner_taps - 1) * people),
            self.graph.view(window), self.graph.view(mixed),
        )
        self.graph.sink(self.graph.view(padded))
        out = self._row(width, padded)
        out = self._row(width, c, out, in_place=True)
        return self.graph.view(self._row(width, out))

    def output(self, current: int, vocabulary: int) -> None:
        """The last norm and the logits."""
        normed = self._norm(current, self._width)
        logits = self._row(vocabulary, normed)
        del logits
