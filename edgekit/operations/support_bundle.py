"""`edgekit doctor --bundle`: what a person elsewhere needs to help, without this site's secrets.

Prompts and answers are not in it: the daemons never log them, and the audit log stays here. API
keys, passwords, the host's name and its machine id are replaced before anything is written.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edgekit import __version__
from edgekit.core.facts import report_table
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import config_table
from edgekit.errors import EdgekitError
from edgekit.operations.doctor import diagnose
from edgekit.operations.probe import probe_host
from edgekit.operations.status import host_status
from edgekit.system import generations
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.process import redact, run
from edgekit.system.site_config import load_site_config

JOURNAL_LINES = 2000
MAX_PART_BYTES = 8 << 20


def write_support_bundle(layout: HostLayout, target: Path) -> tuple[str, ...]:
    """Write a .tar.gz with mode 0600; the names of its files. A part that fails says why instead.

    Raises HostError, DiskFullError when the archive cannot be written.
    """
    parts: dict[str, Callable[[], bytes]] = {
        "doctor.json": lambda: _json([asdict(found) for found in diagnose(layout)]),
        "status.json": lambda: _json(host_status(layout)),
        "probe.json": lambda: _json(
            report_table(probe_host(places=(layout.state, layout.opt)))
        ),
        "config.json": lambda: _json(config_table(load_site_config(layout.site_config))),
        "versions.json": lambda: _json({"edgekit": __version__, "kernel": platform.release()}),
        "journal.txt": _journal,
        "units.txt": lambda: _texts(layout.units.glob("edgekit*")),
        "drop-ins.txt": lambda: _texts(layout.units.glob("edgekit*.d/*.conf")),
    }
    current = generations.current_generation(layout)
    if current is not None:
        for name in ("plan.json", "receipt.json", "appliance.json"):
            parts[name] = partial(_file, layout.generation(current) / name)
    hidden = _names_of_this_host(layout)
    contents = {name: _redacted(_collect(make), hidden) for name, make in parts.items()}
    durable_write(target, _archive(contents), mode=0o600)
    return tuple(sorted(contents))


def _collect(make: Callable[[], bytes]) -> bytes:
    try:
        return make()[:MAX_PART_BYTES]
    except EdgekitError as error:
        return f"not collected: {error.message} {error.details()}\n".encode()


def _file(path: Path) -> bytes:
    return read_bounded(path, MAX_PART_BYTES, path.name)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode() + b"\n"


def _journal() -> bytes:
    done = run(
        ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(JOURNAL_LINES), "-u", "edgekit*"],
        timeout_s=60,
        check=False,
    )
    return done.stdout


def _texts(paths: Iterable[Path]) -> bytes:
    files = [path for path in sorted(paths) if path.is_file()]
    return b"\n".join(f"== {path}\n".encode() + _file(path.resolve()) for path in files)


def _names_of_this_host(layout: HostLayout) -> dict[str, str]:
    """Texts that name this host, and what stands for them."""
    names = {os.uname().nodename: "[host]"}
    machine = layout.root / "etc/machine-id"
    if machine.is_file():
        names[machine.read_text("ascii", errors="replace").strip()] = "[machine-id]"
    return {text: stand_in for text, stand_in in names.items() if len(text) > 2}


def _redacted(data: bytes, hidden: dict[str, str]) -> bytes:
    text = redact(data.decode("utf-8", errors="replace"))
    for name, stand_in in hidden.items():
        text = text.replace(name, stand_in)
    return text.encode()


def _archive(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(contents.items()):
            item = tarfile.TarInfo(f"edgekit-support/{name}")
            item.size, item.mode = len(data), 0o600
            archive.addfile(item, io.BytesIO(data))
    return buffer.getvalue()
