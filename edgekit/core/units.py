"""Filling the unit templates in systemd/*.in. Pure: text and values in, text out.

A template names values as `@NAME@`. A value that is missing, or a template value nobody uses, is a
mistake in edgekit and raises KeyError in the tests, not on a host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


def render_unit(template: str, values: Mapping[str, str]) -> str:
    """The unit's text. Values must not contain newlines: one value, one setting."""
    for name, value in values.items():
        if "\n" in value:
            raise ValueError(f"unit value {name} has more than one line")
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def escape_argument(text: str) -> str:
    """An argument as systemd's ExecStart reads it: quoted, with % and $ taken literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
