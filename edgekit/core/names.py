"""Names safe on every file system, and relative paths that cannot leave their directory."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from edgekit.errors import FormatError

NAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,58}[a-z0-9_-])?"
"""FAT32-safe and case-free: 1 to 60 characters, no trailing dot (bundle-v1 section 5)."""

MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 255


def is_portable_name(text: str) -> bool:
    """True for a name every file system carries unchanged."""
    return re.fullmatch(NAME_PATTERN, text) is not None


@dataclass(frozen=True, slots=True, order=True)
class RelPath:
    """A relative path of a file inside an installed tree.

    NFC text, parts separated by one `/`, no empty, `.` or `..` part, no backslash, colon or control
    character. The only way edgekit makes a path out of bundle content.
    """

    text: str

    def __post_init__(self) -> None:
        problem = _path_problem(self.text)
        if problem is not None:
            raise FormatError(f"unsafe path: {problem}", found=repr(self.text[:200]))

    def __str__(self) -> str:
        return self.text

    @property
    def parts(self) -> tuple[str, ...]:
        """The path's components, outermost first."""
        return tuple(self.text.split("/"))


def _path_problem(text: str) -> str | None:
    if not text or len(text.encode("utf-8", errors="replace")) > MAX_PATH_BYTES:
        return f"empty or longer than {MAX_PATH_BYTES} bytes"
    if unicodedata.normalize("NFC", text) != text:
        return "not in Unicode form NFC"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Cf") for char in text):
        return "control or format character"
    if "\\" in text or ":" in text:
        return "backslash or colon"
    for part in text.split("/"):
        if part in ("", ".", ".."):
            return f"part {part!r}"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"part longer than {MAX_PART_BYTES} bytes"
    return None
