"""Weighing one way to serve against the room a host has: devices first, then the host. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.planning.devices import Device
from edgekit.core.planning.llama_memory import (
    DEVICE_PROCESS_BYTES,
    cache_bytes,
    llama_need,
    state_bytes,
)
from edgekit.core.planning.llama_shape import Cells, LlamaShape
from edgekit.core.planning.rungs import Rung
from edgekit.core.planning.values import CPU, GPU, MIB, MIXED, DeviceShare, MemoryNeed, Serving


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that may be used: of the host's memory, and what earlier models took of each device."""

    host: int
    taken: tuple[tuple[str, int], ...] = ()

    def of(self, device: Device) -> int:
        """Bytes left on a device; one that shares the host's memory has what the host has."""
        if device.integrated:
            return self.host
        return device.budget - sum(size for name, size in self.taken if name == device.identity)

    def after(self, need: MemoryNeed, devices: tuple[DeviceShare, ...], *, shared: bool) -> Room:
        """The room that is left when this is served."""
        taken = self.taken + tuple((share.identity, share.bytes) for share in devices)
        return Room(self.host - (need.total if shared else need.host), taken)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A way to serve with its need, whether it fits, and the numbers in words."""

    serving: Serving
    need: MemoryNeed
    fits: bool
    words: str


def weigh_on_host(
    shape: LlamaShape, rung: Rung, room: Room, *, threads: int, batch: int
) -> Weighed:
    """Everything on the processor."""
    need = llama_need(
        shape, context=rung.context, slots=rung.slots, kv_type=rung.kv_type, batch=batch
    )
    serving = Serving(rung.slots, rung.context, threads, batch, rung.kv_type, CPU)
    return Weighed(serving, need, need.host <= room.host, _words(need.host, room.host))


def weigh_on_devices(
    shape: LlamaShape,
    rung: Rung,
    room: Room,
    devices: Sequence[Device],
    *,
    threads: int,
    batch: int,
    gpu_layers: int | None = None,
    host_experts: int = 0,
) -> Weighed:
    """`gpu_layers` layers from the back (all of them and the output unless said) on accelerators.

    One device is taken when one is enough, the roomiest; else layers fill the devices in order.
    """
    layers = shape.layers + 1 if gpu_layers is None else gpu_layers
    costs = _layer_costs(shape, rung, batch=batch, layers=layers, host_experts=host_experts)
    order = sorted(devices, key=lambda device: -room.of(device))
    fixed = _fixed_cost(shape, rung, batch=batch)
    for chosen in ([order[0]], list(devices)):
        shares, left = _fill(costs, chosen, room, fixed)
        if not left:
            break
    need = llama_need(
        shape,
        context=rung.context,
        slots=rung.slots,
        kv_type=rung.kv_type,
        batch=batch,
        gpu_layers=layers,
        host_experts=host_experts,
        devices=len(shares),
    )
    whole = layers > shape.layers and not host_experts
    serving = Serving(
        rung.slots,
        rung.context,
        threads,
        batch,
        rung.kv_type,
        GPU if whole else MIXED,
        gpu_layers=layers,
        host_experts=host_experts,
        tensor_split=tuple(share.layers for share in shares) if len(shares) > 1 else (),
        devices=shares,
    )
    return _verdict(serving, need, chosen, room, left)


def _verdict(
    serving: Serving, need: MemoryNeed, devices: Sequence[Device], room: Room, left: int
) -> Weighed:
    if any(device.integrated for device in devices):
        return Weighed(serving, need, need.total <= room.host, _words(need.total, room.host))
    budget = sum(room.of(device) for device in devices)
    names = "+".join(device.name for device in devices)
    words = (
        f"{names} {_words(need.device, budget)}, host {_words(need.host, room.host)}"
        if need.device <= budget or not left
        else f"{names} {_words(need.device, budget)}"
    )
    if left and need.device <= budget:
        words += f", but {left} layers find no device with room"
    return Weighed(serving, need, not left and need.host <= room.host, words)


def most_layers(
    shape: LlamaShape, rung: Rung, room: Room, devices: Sequence[Device], *, batch: int
) -> int:
    """The most layers from the back that the devices hold; 0 when not even one."""
    fixed = _fixed_cost(shape, rung, batch=batch)
    all_costs = _layer_costs(shape, rung, batch=batch, layers=shape.layers + 1, host_experts=0)
    for layers in range(shape.layers, 0, -1):
        _, left = _fill(all_costs[-layers:], devices, room, fixed)
        if not left:
            return layers
    return 0


def _layer_costs(
    shape: LlamaShape, rung: Rung, *, batch: int, layers: int, host_experts: int
) -> list[int]:
    """Bytes on a device of each offloaded layer, in order; the output is the last."""
    cells = Cells.of(shape, context=rung.context, slots=rung.slots, batch=batch)
    first = max(0, shape.layers - (layers - 1))
    costs = []
    for layer in range(first, shape.layers):
        one = range(layer, layer + 1)
        experts = shape.expert_bytes[layer] if layer >= host_experts else 0
        costs.append(
            shape.layer_bytes[layer]
            + experts
            + cache_bytes(shape, cells, slots=rung.slots, kv_type=rung.kv_type, layers=one)
            + state_bytes(shape, slots=rung.slots, layers=one)
        )
    output = shape.number("output_bytes") or shape.number("embedding_bytes")
    return [*costs, output + shape.number("other_bytes")]


def _fixed_cost(shape: LlamaShape, rung: Rung, *, batch: int) -> int:
    """Bytes on every device that is used, however many layers it holds."""
    need = llama_need(
        shape, context=rung.context, slots=rung.slots, kv_type=rung.kv_type, batch=batch
    )
    return need.of("compute") + need.of("adapters") + DEVICE_PROCESS_BYTES


def _fill(
    costs: list[int], devices: Sequence[Device], room: Room, fixed: int
) -> tuple[tuple[DeviceShare, ...], int]:
    """(what each device gets, layers that found no room); layers stay in order."""
    shares: list[DeviceShare] = []
    position = 0
    for device in devices:
        used, start = fixed, position
        while position < len(costs) and used + costs[position] <= room.of(device):
            used += costs[position]
            position += 1
        if position > start:
            shares.append(DeviceShare(device.name, device.identity, position - start, used))
    return tuple(shares), len(costs) - position


def _words(need: int, budget: int) -> str:
    """`12 MiB of 34 MiB`: a need is rounded up, what is there is rounded down."""
    return f"{-(-need // MIB)} MiB of {max(0, budget) // MIB} MiB"
