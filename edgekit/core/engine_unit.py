"""What an engine's unit must allow beyond the tightest sandbox, by kind of engine. Pure.

Every relief is one that a measured start needs; what it opens and why: docs/reference/vllm.md. None
of them gives an engine a network: the unit's own has loopback and nothing else.
"""

from __future__ import annotations

TIGHTEST = {
    "FAMILIES": "AF_UNIX",
    "LOOPBACK": "",
    "WRITE_EXECUTE": "yes",
    "PROC_SUBSET": "pid",
    "PROGRAMS": "",
    # ggml pins its threads
    "SYSTEM_CALLS": "sched_setaffinity",
}
"""Values of the template for an engine that is one program and generates no code."""

_RELIEFS = {
    "vllm": {
        # torch's process group and its store talk over loopback, in a group of one, too
        "FAMILIES": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "LOOPBACK": "localhost",
        # oneDNN writes its matrix kernels when it first sees a shape
        "WRITE_EXECUTE": "no",
        # psutil reads /proc/meminfo and /proc/stat
        "PROC_SUBSET": "all",
        # it asks lscpu, through a shell, which processors belong to which node
        "PROGRAMS": "-/bin/sh -/usr/bin/sh -/usr/bin/dash -/usr/bin/bash -/usr/bin/lscpu",
        # memory is bound to the node of the threads; ZeroMQ sets its thread's policy to what it is
        "SYSTEM_CALLS": "sched_setaffinity sched_setscheduler mbind set_mempolicy get_mempolicy",
    }
}


def unit_values(kind: str) -> dict[str, str]:
    """Values of the engine unit's template for this kind of engine."""
    return TIGHTEST | _RELIEFS.get(kind, {})
