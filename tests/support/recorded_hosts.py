"""Recorded hosts: one TOML per host, unfolded into the tree that probes read.

`[cpu]` stands for many files of /proc/cpuinfo and sysfs, `[files]`, `[commands]` and `[calls]` for
one each. `source` says where the recording's text is from.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.facts import HostReport
from edgekit.operations.probe import probe_host

HOSTS = Path(__file__).resolve().parents[1] / "hosts"
PLACES = (Path("/var/lib/edgekit"), Path("/opt/edgekit"))
_ATOM_SCALE = 60


@dataclass(frozen=True)
class RecordedHost:
    """A host with the plans that are expected for it: by number of users, then by model."""

    name: str
    source: str
    tree: Path
    expected: dict[str, str]

    def report(self) -> HostReport:
        return probe_host(places=PLACES, root=self.tree)


def host_names() -> list[str]:
    return sorted(path.stem for path in HOSTS.glob("*.toml"))


def unfold(name: str, folder: Path) -> RecordedHost:
    """Write the host's tree below `folder`."""
    table = tomllib.loads((HOSTS / f"{name}.toml").read_text("utf-8"))
    tree = folder / name
    files: dict[str, str] = _cpu_files(table["cpu"])
    files |= _memory_files(table["memory"])
    files |= table.get("files", {})
    files |= {f"commands/{key}": text for key, text in table.get("commands", {}).items()}
    calls = {"machine": table["cpu"]["arch"], "page_size": "4096", "time": "1790000000",
             "affinity": str(_threads(table["cpu"])), "glibc": "glibc 2.36", "kernel": "6.1.0"}
    calls |= {f"free{str(place).replace('/', '-')}": str(200 << 30) for place in PLACES}
    calls |= table.get("calls", {})
    files |= {f"calls/{key}": text for key, text in calls.items()}
    for path, text in files.items():
        place = tree / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    return RecordedHost(name, table["source"], tree, table["expected"])


def _threads(cpu: dict[str, Any]) -> int:
    return int(cpu.get("sockets", 1) * cpu["cores"] * cpu.get("threads", 1)
               + cpu.get("efficiency_cores", 0))


def _cpu_files(cpu: dict[str, Any]) -> dict[str, str]:
    """sysfs topology as Linux numbers it: all first threads, then all second ones, then E-cores."""
    sockets, cores, per_core = cpu.get("sockets", 1), cpu["cores"], cpu.get("threads", 1)
    whole = sockets * cores
    files: dict[str, str] = {}
    for number in range(_threads(cpu)):
        folder = f"sys/devices/system/cpu/cpu{number}"
        is_slow = number >= whole * per_core
        core = number if is_slow else number % whole
        siblings = [core] if is_slow else [core + whole * k for k in range(per_core)]
        text = ",".join(map(str, siblings))
        files[f"{folder}/topology/thread_siblings_list"] = text
        socket = 0 if is_slow else core // cores
        files[f"{folder}/topology/physical_package_id"] = str(socket)
        if cpu.get("efficiency_cores"):
            fast = int(cpu.get("max_khz", 5_000_000))
            rate = fast * _ATOM_SCALE // 100 if is_slow else fast
            files[f"{folder}/cpufreq/cpuinfo_max_freq"] = str(rate)
            files["sys/devices/cpu_atom/type"] = "10"
    for node in range(cpu.get("numa_nodes", sockets)):
        files[f"sys/devices/system/node/node{node}/cpulist"] = "0"
    name, flags = cpu.get("name", ""), cpu["flags"]
    if cpu["arch"] == "x86_64":
        vendor = cpu["vendor"]
        entry = f"vendor_id\t: {vendor}\nmodel name\t: {name}\nflags\t\t: {flags}\n"
    else:
        entry = f"Features\t: {flags}\nCPU implementer\t: {cpu['vendor']}\n"
    files["proc/cpuinfo"] = "".join(f"processor\t: {n}\n{entry}\n" for n in range(_threads(cpu)))
    return files


def _memory_files(memory: dict[str, Any]) -> dict[str, str]:
    lines = (("MemTotal", "total_kb"), ("MemAvailable", "available_kb"), ("SwapTotal", "swap_kb"))
    text = "".join(f"{key}: {memory.get(name, 0)} kB\n" for key, name in lines)
    return {"proc/meminfo": text + "HugePages_Free: 0\nHugepagesize: 2048 kB\n"}
