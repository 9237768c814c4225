"""Wheels made for tests: right by default, wrong on request."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class WheelMaker:
    """What to put in; `write` makes the file and returns its path.

    `record` changes RECORD lines by member name (None leaves the line out); `modes` are Unix's.
    """

    name: str = "pkg"
    version: str = "1.0"
    tag: str = "py3-none-any"
    requires: tuple[str, ...] = ()
    members: dict[str, bytes] = field(default_factory=dict)
    record: dict[str, str | None] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    twice: tuple[str, ...] = ()
    metadata_name: str | None = None

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}-{self.tag}.whl"

    def write(self, folder: Path) -> Path:
        info = f"{self.name}-{self.version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {self.metadata_name or self.name}",
                    f"Version: {self.version}", *(f"Requires-Dist: {r}" for r in self.requires)]
        tags = f"Tag: {self.tag}"
        files = {
            f"{self.name}/__init__.py": b"value = 1\n",
            **self.members,
            f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tags}\n".encode(),
        }
        lines = {name: f"{name},sha256={_b64(data)},{len(data)}" for name, data in files.items()}
        lines[f"{info}/RECORD"] = f"{info}/RECORD,,"
        for name, line in self.record.items():
            if line is None:
                lines.pop(name)
            else:
                lines[name] = line
        files[f"{info}/RECORD"] = ("\n".join(lines.values()) + "\n").encode()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                self._add(archive, name, data)
            for name in self.twice:
                self._add(archive, name, files[name])
        return path

    def _add(self, archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name)
        entry.filename = entry.orig_filename = name
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = self.modes.get(name, stat.S_IFREG | 0o644) << 16
        archive.writestr(entry, data)


def _b64(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
