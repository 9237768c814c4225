"""What an installed engine sees is a fact of the host; without an engine it is unknown."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.core.facts import parse_report, report_table
from edgekit.operations.probe import probe_host
from edgekit.system.probe.engine_devices import probe_engine_devices
from edgekit.system.probe.view import HostView

PACK = "opt/edgekit/current/engines/llama.cpp-source"


def recorded(root: Path, listing: str | None) -> HostView:
    (root / PACK).mkdir(parents=True)
    if listing is not None:
        (root / "commands").mkdir()
        (root / "commands/ggml-devices").write_text(listing, "utf-8")
    return HostView(root)


def test_every_device_is_named_and_remarks_are_passed_over(tmp_path: Path) -> None:
    lines = ["ggml_cuda_init: found 1 device", json.dumps(
        {"name": "CUDA0", "description": "NVIDIA L4", "type": "gpu", "free": 1, "total": 23 << 30}),
        '{"name": "broken"}', "[1]"]
    fact = probe_engine_devices(recorded(tmp_path, "\n".join(lines)))
    assert fact.value == ("CUDA0 gpu 23552 MiB NVIDIA L4",)
    assert fact.source.endswith("devices")


def test_a_host_without_an_engine_or_whose_engine_does_not_answer_is_unknown(
    tmp_path: Path,
) -> None:
    assert probe_engine_devices(HostView(tmp_path)).value is None
    assert probe_engine_devices(recorded(tmp_path, None)).value is None


def test_a_report_of_an_earlier_release_is_read() -> None:
    table = report_table(probe_host(places=()))
    assert parse_report(json.dumps(table).encode(), file="host.json").system.engine_devices.source
    del table["system"]["engine_devices"]
    old = parse_report(json.dumps(table).encode(), file="host.json")
    assert old.system.engine_devices.value is None
