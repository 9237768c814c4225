"""Errors as people and scripts read them. Pure: an error in, text out."""

from __future__ import annotations

import json
from typing import Any

from edgekit.errors import EdgekitError


def render_error(error: EdgekitError) -> str:
    """Several lines: what happened, where, what was needed and found, and what to do."""
    lines = [f"error[{error.slug}]: {error.message}"]
    for name, text in error.details().items():
        first, *rest = text.splitlines() or [""]
        lines.append(f"  {name:<7} {first}")
        lines += [f"          {line}" for line in rest]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def error_table(error: EdgekitError) -> dict[str, Any]:
    """The same as plain JSON values (`edgekit.error/1`)."""
    return {
        "schema": "edgekit.error/1",
        "error": error.slug,
        "code": int(error.exit_code),
        "message": error.message,
        **error.details(),
        **({"hint": error.hint} if error.hint else {}),
    }


def render_json(table: dict[str, Any]) -> str:
    """A JSON document with a final newline left to the printer."""
    return json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False)


def format_bytes(count: int) -> str:
    """A size for people: 3.4 MiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
