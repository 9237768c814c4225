"""Where edgekit's own data files are: units, profiles, the console; wherever it runs from."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.errors import HostError

DATA_FOLDERS = ("systemd", "profiles", "console")

_PACKAGE = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path:
    """One of the folders above. Raises HostError when this edgekit came without it."""
    frozen = getattr(sys, "_MEIPASS", None)
    candidates = [_PACKAGE / "_data" / name, _PACKAGE.parent / name]
    if frozen is not None:
        candidates.insert(0, Path(frozen) / "edgekit" / "_data" / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise HostError(
        "this edgekit is incomplete", needed=f"its data folder {name}", hint="copy edgekit again"
    )


def read_unit_templates() -> dict[str, str]:
    """Unit templates by the name of the unit they make."""
    folder = data_folder("systemd")
    return {
        path.name.removesuffix(".in"): path.read_text("utf-8")
        for path in sorted(folder.glob("*.in"))
    }


def is_frozen() -> bool:
    """True when this is the one-file installer or the installed runtime."""
    return getattr(sys, "frozen", False) is True
