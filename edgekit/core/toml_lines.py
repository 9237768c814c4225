"""Where the keys of a TOML document stand, because tomllib keeps no positions.

Only for documents that tomllib has accepted: this walks tokens and checks nothing.
"""

from __future__ import annotations

import re
import tomllib

_TOKENS = re.compile(
    r"(?P<newline>\n)|(?P<blank>[ \t\r]+|\#[^\n]*)"
    r'|(?P<text>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\')'
    r"|(?P<mark>[\[\]{}=,.])|(?P<word>[^\s\[\]{}=,.\"'#]+)",
    re.DOTALL,
)


def find_line(text: str, path: str) -> int:
    """The line of a dotted key such as `model[1].variant[0].format` or `model[0].files.1`.

    For a key that is not there, the line of the innermost table or value that holds it, else 1.
    """
    lines = _Walker(text).lines
    while path:
        if path in lines:
            return lines[path]
        path = path[: path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]
    return 1


class _Walker:
    """Walks a document once; `lines` maps every path in it to its line, counted from 1."""

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKENS.finditer(text):
            if match.lastgroup != "blank":
                self._tokens.append((match.group(), line))
            line += match.group().count("\n")
        self._tokens.reverse()
        self._document()

    def _peek(self) -> str:
        return self._tokens[-1][0] if self._tokens else ""

    def _take(self) -> tuple[str, int]:
        return self._tokens.pop() if self._tokens else ("", 0)

    def _skip(self, *marks: str) -> None:
        while self._tokens and self._peek() in marks:
            self._take()

    def _document(self) -> None:
        table = ""
        self._skip("\n")
        while self._tokens:
            table = self._header() if self._peek() == "[" else self._pair(table)
            self._skip("\n")

    def _header(self) -> str:
        """`[a.b]` or `[[a.b]]`: the path of the table it opens."""
        _, line = self._take()
        is_array = self._peek() == "["
        self._skip("[")
        *outer, last = self._key()
        self._skip("]")
        path = ""
        for part in outer:
            path = _join(path, part)
            if path in self._counts:
                path += f"[{self._counts[path]}]"
        path = _join(path, last)
        self.lines.setdefault(path, line)
        if is_array:
            self._counts[path] = self._counts.get(path, -1) + 1
            path += f"[{self._counts[path]}]"
            self.lines.setdefault(path, line)
        return path

    def _pair(self, table: str) -> str:
        """`key = value`; gives the table back, which stays the same."""
        line = self._tokens[-1][1]
        path = table
        for part in self._key():
            path = _join(path, part)
            self.lines.setdefault(path, line)
        self._skip("=")
        self._value(path)
        return table

    def _key(self) -> list[str]:
        parts = [_plain(self._take()[0])]
        while self._peek() == ".":
            self._take()
            parts.append(_plain(self._take()[0]))
        return parts

    def _value(self, path: str) -> None:
        if self._peek() == "{":
            self._skip("{", "\n")
            while self._peek() not in ("}", ""):
                self._pair(path)
                self._skip(",", "\n")
            self._take()
        elif self._peek() == "[":
            self._items(path)
        else:
            while self._peek() not in ("\n", ",", "]", "}", ""):
                self._take()

    def _items(self, path: str) -> None:
        self._take()
        self._skip("\n")
        number = 0
        while self._peek() not in ("]", ""):
            line = self._tokens[-1][1]
            for spelling in (f"{path}[{number}]", f"{path}.{number}"):
                self.lines.setdefault(spelling, line)
            self._value(f"{path}[{number}]")
            self._skip(",", "\n")
            number += 1
        self._take()


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _plain(token: str) -> str:
    """A key as it is meant: quoted keys lose their quotes and escapes."""
    if token[:1] not in ('"', "'"):
        return token
    return str(tomllib.loads(f"key = {token}")["key"])
