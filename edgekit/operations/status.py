"""`edgekit status`: what serves here, who vouches for it, how it does, and what it takes up."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.core.forward_state import MAX_STATE_BYTES, parse_forward_state
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import AuditConfig
from edgekit.core.text_policy import TextMode
from edgekit.errors import EdgekitError
from edgekit.operations.boot_check import FAILED, WENT_BACK, load_boot_report, load_fallbacks
from edgekit.operations.host_records import (
    load_appliance,
    load_pins,
    previous_generation,
    require_generation,
)
from edgekit.operations.host_trust import load_host_trust, load_installed, trust_warnings
from edgekit.system import generations
from edgekit.system.audit_files import read_head
from edgekit.system.audit_space import read_space
from edgekit.system.clock import wall_clock
from edgekit.system.files import free_bytes, read_bounded, tree_bytes
from edgekit.system.services import FORWARDER, SystemdServices, UnitState, appliance_units
from edgekit.system.site_config import load_site_config

MAX_DOCUMENT_BYTES = 16 << 20
DAY_S = 86_400


def host_status(layout: HostLayout) -> dict[str, Any]:
    """The host's state as plain JSON values (`edgekit.status/1`). Raises NotInstalledError."""
    generation = require_generation(layout)
    appliance = load_appliance(layout, generation)
    host, now = load_host_trust(layout), wall_clock()
    units = unit_states(layout, appliance)
    troubles = [text for name, state in units.items() if (text := _trouble(name, state))]
    audit = load_site_config(layout.site_config).audit
    forward, room = _forwarding(layout, audit), log_room(layout, audit)
    return {
        "schema": "edgekit.status/1",
        "generation": generation,
        "previous": previous_generation(layout, generation) or "",
        "pinned": sorted(load_pins(layout)),
        "generations": sorted(generations.installed(layout)),
        "listen": appliance.listen,
        "alive": _alive(appliance.listen),
        "units": {name: asdict(state) for name, state in units.items()},
        "troubles": [*troubles, *_history(layout)],
        "models": _models(layout, generation, appliance),
        "floor": {"epoch": host.floor.epoch, "sequence": host.floor.sequence},
        "policy": host.root.policy if host.root else "",
        "developer_root": bool(host.root and host.root.developer),
        "trust": _trust(layout, now),
        "space": _space(layout),
        "audit": {"texts": audit.text_policy().table(), "forward": forward, "log": room},
        "warnings": [
            *trust_warnings(layout, host, now),
            *text_warnings(audit),
            *forward_warnings(forward),
            *room_warnings(room),
        ],
        "receipt": _document(layout.generation(generation) / "receipt.json"),
    }


def unit_states(layout: HostLayout, appliance: Appliance) -> dict[str, UnitState]:
    """Each unit of the appliance as systemd sees it; none for a private root."""
    if layout.is_private:
        return {}
    return SystemdServices(layout).inspect(appliance_units(appliance))


def _trouble(unit: str, state: UnitState) -> str:
    """What is wrong with a unit, in one line; empty when nothing is."""
    if state.given_up:
        return f"{unit} failed {state.restarts} times and was given up: edgekit doctor"
    if state.active != "active":
        return f"{unit} is {state.active} ({state.sub}, {state.result}): journalctl -u {unit}"
    if state.restarts:
        return f"{unit} was restarted {state.restarts} times since it was started last"
    return ""


def _history(layout: HostLayout) -> list[str]:
    """What the checks after boots did, where an operator must know."""
    try:
        report, left = load_boot_report(layout), load_fallbacks(layout)
    except EdgekitError as error:
        return [f"what the last boot did cannot be read: {error.message}"]
    lines = [f"{name} was left by itself: {one.reason}" for name, one in left.items()]
    if report is not None and report.verdict not in (WENT_BACK, "passed"):
        word = "failed" if report.verdict == FAILED else "could not tell"
        lines.append(f"the check after the last boot {word}: {report.reason}")
    return lines


def _models(layout: HostLayout, generation: str, appliance: Appliance) -> list[dict[str, Any]]:
    """Each model with the plan that it runs by."""
    plan = _document(layout.generation(generation) / "plan.json") or {}
    chosen = {item["model"]: item["chosen"] for item in plan.get("models", ())}
    return [
        {
            "name": model.name,
            "quantization": model.quantization,
            "context": model.context,
            "engine": appliance.engine(model.engine).kind,
            "slots": appliance.engine(model.engine).slots,
            "memory_bytes": ((chosen.get(model.engine) or {}).get("need") or {}).get("total", 0),
        }
        for model in appliance.models
    ]


def _trust(layout: HostLayout, now: int) -> dict[str, Any]:
    """Who signed what serves, and how old that word is; empty when it cannot be told."""
    try:
        installed = load_installed(layout)
    except EdgekitError:
        return {}
    if installed is None:
        return {}
    statement = installed.statement
    return {
        "signers": list(statement.signers),
        "root_version": installed.root.version,
        "created": statement.created,
        "age_days": max(0, (now - statement.created) // DAY_S),
        "expires": statement.expires,
    }


def _space(layout: HostLayout) -> dict[str, int]:
    """Bytes taken by blobs and releases (a file with two names counts once), and left."""
    return {
        "taken_bytes": tree_bytes(layout.state / "blobs", layout.generations),
        "free_bytes": free_bytes(layout.state),
    }


def text_warnings(audit: AuditConfig) -> list[str]:
    """What a reader must know when texts are kept in clear."""
    policy = audit.text_policy()
    if TextMode.FULL not in policy.modes():
        return []
    if policy.default is TextMode.FULL:
        return ["prompts and answers are kept in the clear (audit.texts)"]
    rules = {**policy.keys, **policy.models}
    names = ", ".join(sorted(name for name, mode in rules.items() if mode is TextMode.FULL))
    return [f"prompts and answers are kept in the clear for {names} (audit.texts_by_...)"]


def log_room(layout: HostLayout, audit: AuditConfig) -> dict[str, Any]:
    """Bytes of the audit log's files and their limit, and how full that is. Raises HostError."""
    space = read_space(layout.audit, audit)
    used, limit = space.used_bytes(), space.capacity.limit_bytes
    table = {"used_bytes": used, "limit_bytes": limit, "percent": 100 * used // limit}
    return {**table, "level": space.level().label}


def room_warnings(room: Mapping[str, Any]) -> list[str]:
    """What to say of a log that fills up: at its end no request is served."""
    if room["level"] == "ok":
        return []
    return [f"the audit log is {room['percent']} % full (edgekit audit export, then prune)"]


def _forwarding(layout: HostLayout, audit: AuditConfig) -> dict[str, Any]:
    """Where copies of records go, how far they got, and whether they still go there."""
    table: dict[str, Any] = {"to": audit.forward, "sent": 0, "waiting": 0, "dropped": 0}
    if audit.forward == "none":
        return table
    if not layout.is_private:
        table["unit"] = asdict(SystemdServices(layout).inspect([FORWARDER])[FORWARDER])
    try:
        last = read_head(layout.audit).seq
        if layout.forward_state.exists():
            data = read_bounded(layout.forward_state, MAX_STATE_BYTES, "forward.json")
            state = parse_forward_state(data)
            table |= {"sent": state.seq, "dropped": state.dropped}
        table["waiting"] = max(0, last - table["sent"])
    except EdgekitError as error:
        table["unknown"] = error.message
    return table


def forward_warnings(forward: Mapping[str, Any]) -> list[str]:
    """What keeps copies of records from where they should go."""
    lines = []
    if forward["dropped"]:
        lost = forward["dropped"]
        lines.append(f"{lost} records were never forwarded: journalctl -u {FORWARDER}")
    if forward.get("unit", {}).get("active", "active") != "active":
        lines.append(f"records are not forwarded to {forward['to']}: journalctl -u {FORWARDER}")
    return lines


def _document(path: Path) -> Any:
    if not path.exists():
        return None
    return json.loads(read_bounded(path, MAX_DOCUMENT_BYTES, path.name))


def _alive(listen: str) -> bool:
    """Whether the API answers on its health path."""
    address, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=3)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
