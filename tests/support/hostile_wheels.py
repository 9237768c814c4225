"""Wheels that attack: what to change in a good one, and what the refusal must speak of."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.elf import make_elf
from tests.support.wheel_maker import WheelMaker

INFO = "pkg-1.0.dist-info"
DATA = "pkg-1.0.data"
INIT = "pkg/__init__.py"
HASH = "A" * 43


@dataclass(frozen=True)
class HostileWheel:
    """A wheel by its maker, then damaged by `damage` (bytes of the file in, bytes out)."""

    name: str
    reason: str
    maker: dict[str, Any]
    damage: Callable[[bytes], bytes] = bytes

    def write(self, folder: Path) -> Path:
        """The wheel's file, below `folder`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names it writes twice
            path = WheelMaker(**self.maker).write(folder)
        path.write_bytes(self.damage(path.read_bytes()))
        return path


def hostile_wheels() -> list[HostileWheel]:
    """All of them."""
    return [*_members(), *_startup(), *_scripts(), *_records(), *_identities(), *_archives()]


def _with(name: str, reason: str, data: bytes = b"", mode: int | None = None) -> HostileWheel:
    modes = {} if mode is None else {name: mode}
    return HostileWheel(f"member {name!r} {mode or ''}", reason,
                        {"members": {name: data}, "modes": modes})


def _members() -> list[HostileWheel]:
    bad_names = ["../evil.py", "pkg/../../evil.py", "..", "./evil.py", "pkg//evil.py", "/etc/evil",
                 "//host/evil", "pkg\\evil.py", "..\\evil.py", "C:/evil.py", "C:evil.py",
                 "pkg/a\0b.py", "pkg/\n.py", "pkg/\u202egnp.py", "pkg/\u200b.py",
                 "pkg/" + "n" * 300, "d/" * 600 + "x", "pkg/e\u0301.py"]
    kinds = {stat.S_IFLNK: "link", stat.S_IFCHR: "device", stat.S_IFBLK: "disk",
             stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "directory"}
    return [
        *(_with(name, "unsafe path") for name in bad_names),
        *(_with(f"pkg/{kind}", "not a regular file", b"/etc/passwd", mode | 0o777)
          for mode, kind in kinds.items()),
        HostileWheel("member twice", "twice", {"twice": (INIT,)}),
        HostileWheel("member twice by case", "twice", {"members": {"pkg/__INIT__.py": b""}}),
        _with(f"{DATA}/purelib/pkg/__init__.py", "land on one name"),
        _with(f"{DATA}/platlib/pkg/__INIT__.py", "land on one name"),
        _with("pkg/__init__.py/x.py", "below a file"),
        _with(f"{DATA}/purelib", ".data"),
        _with(f"{DATA}/etc/passwd", ".data"),
        _with("other-1.0.data/purelib/x.py", ".data"),
        _with("pkg-1.0.DATA/scripts/ls", ".data"),
        _with("pkg/a.so", "ELF", make_elf("GLIBC_2.17", chain_ok=False)),
        _with("pkg/b.so", "b.so", b"\x7fELF\x02\x01\x01" + b"\xff" * 200),
    ]


def _startup() -> list[HostileWheel]:
    names = ["evil.pth", "EVIL.PTH", "a.start", "a.egg-link", "sitecustomize.py",
             "usercustomize.py", "sitecustomize/__init__.py",
             "sitecustomize.cpython-311-x86_64-linux-gnu.so",
             "SiteCustomize.py", f"{DATA}/purelib/evil.pth", f"{DATA}/platlib/sitecustomize.so"]
    wheels = [_with(name, "every start", b"import os") for name in names]
    return [*wheels, HostileWheel("setuptools' pth with other bytes", "every start",
                                  {"members": {"distutils-precedence.pth": b"import evil"}})]


def _scripts() -> list[HostileWheel]:
    def points(text: str, reason: str) -> HostileWheel:
        return HostileWheel(f"entry points {text[:60]!r}", reason,
                            {"members": {f"{INFO}/entry_points.txt": text.encode()}})

    return [
        _with(f"{DATA}/scripts/ls", "scripts ls", b"#!/bin/sh"),
        _with(f"{DATA}/scripts/sub/run", "scripts sub/run", b"#!python"),
        points("[console_scripts]\nsudo = pkg:main\n", "script sudo"),
        points("[console_scripts]\npkg = pkg:main\npython3 = pkg:main\n", "script python3"),
        points("[gui_scripts]\nsystemctl = pkg:main\n", "script systemctl"),
        points("[console_scripts]\n../../bin/ls = pkg:main\n", "no plain name"),
        points("[console_scripts]\npkg = __import__('os').system('id')\n", "no plain name"),
        points("[console_scripts]\npkg = pkg:main\npkg = evil:main\n", "cannot be read"),
        points("pkg = pkg:main\n", "cannot be read"),
        points("[DEFAULT]\nls = pkg:main\n[console_scripts]\n", "outside a group"),
        points("[vllm.general_plugins]\nx = pkg:register\n", "every start of vllm"),
        points("[console_scripts]\n" + "".join(f"pkg-{n} = p:m\n" for n in range(2001)),
               "too many"),
        HostileWheel("entry points not UTF-8", "UTF-8",
                     {"members": {f"{INFO}/entry_points.txt": b"\xff\xfe[console_scripts]"}}),
    ]


def _records() -> list[HostileWheel]:
    def line(name: str, text: str | None, reason: str, key: str = INIT) -> HostileWheel:
        return HostileWheel(f"RECORD {name}", reason, {"record": {key: text}})

    body = b"value = 1\n"
    sha = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    good = f"{INIT},sha256={sha},{len(body)}"
    return [
        line("of other bytes", f"{INIT},sha256={HASH},10", "not what RECORD says"),
        line("of another size", f"{INIT},sha256={sha},11", "not as large as RECORD"),
        line("of a negative size", f"{INIT},sha256={sha},-1", "no usable hash"),
        line("of a size in words", f"{INIT},sha256={sha},ten", "no usable hash"),
        line("of a huge size", f"{INIT},sha256={sha},{'9' * 40}", "no usable hash"),
        line("without a line", None, "not in RECORD"),
        line("without a hash", f"{INIT},,", "no usable hash"),
        line("of a weak hash", f"{INIT},md5={HASH},10", "no usable hash"),
        line("of SHA-1", f"{INIT},sha1={HASH},10", "no usable hash"),
        line("of a short hash", f"{INIT},sha256=AAAA,10", "not what RECORD says"),
        line("of no base64", f"{INIT},sha256=A,10", "no usable hash"),
        line("with a line twice", f"{good}\n{good}", "twice"),
        line("with two hashes", f"{good}\n{INIT},sha256={HASH},10", "twice"),
        line("of a ghost", f"pkg/ghost.py,sha256={HASH},1", "not in the archive", "x"),
        line("of a path outside", f"../../etc/passwd,sha256={HASH},1", "not in the archive", "x"),
        line("with two fields", f"{INIT},sha256={sha}", "the line"),
        line("with four fields", f"{good},x", "the line"),
        line("with an open quote", f'"{good}', "RECORD"),
        HostileWheel("METADATA not in RECORD", "not in RECORD",
                     {"record": {f"{INFO}/METADATA": None}}),
        HostileWheel("WHEEL with another hash", "not what RECORD says",
                     {"record": {f"{INFO}/WHEEL": f"{INFO}/WHEEL,sha256={HASH},1"}}),
    ]


def _identities() -> list[HostileWheel]:
    def replaced(name: str, reason: str, file: str, old: bytes, new: bytes) -> HostileWheel:
        return HostileWheel(name, reason, {}, lambda data: _rewritten(data, file, old, new))

    return [
        HostileWheel("another name", "METADATA", {"metadata_name": "evil"}),
        HostileWheel("two dist-infos", "dist-info",
                     {"members": {"zzz-1.dist-info/METADATA": b""}}),
        HostileWheel("two dist-infos by case", "dist-info",
                     {"members": {"pkg-1.0.DIST-INFO/x": b""}}),
        replaced("another version", "METADATA", "METADATA", b"Version: 1.0", b"Version: 6.6"),
        replaced("two names", "2 headers Name", "METADATA", b"Name: pkg", b"Name: pkg\nName: evil"),
        replaced("two versions", "2 headers Version", "METADATA", b"Version: 1.0",
                 b"Version: 1.0\nVersion: 9"),
        replaced("no name", "0 headers Name", "METADATA", b"Name: pkg", b"X: y"),
        replaced("wheel of format 2", "not 1", "WHEEL", b"Wheel-Version: 1.0",
                 b"Wheel-Version: 2.0"),
        replaced("wheel of no format", "0 headers", "WHEEL", b"Wheel-Version: 1.0", b"X: y"),
        HostileWheel("no METADATA", "it has no", {}, lambda data: _without(data, "METADATA")),
        HostileWheel("no WHEEL", "it has no", {}, lambda data: _without(data, "WHEEL")),
        HostileWheel("no RECORD", "it has no", {}, lambda data: _without(data, "RECORD")),
        HostileWheel("no dist-info", "dist-info", {}, lambda data: _without(data, "dist-info")),
        HostileWheel("dist-info of another version", "dist-info", {},
                     lambda data: data.replace(b"pkg-1.0.dist-info", b"pkg-9.9.dist-info")),
    ]


def _archives() -> list[HostileWheel]:
    def damaged(name: str, damage: Callable[[bytes], bytes], reason: str = "") -> HostileWheel:
        maker = {"members": {"pkg/big": bytes(90_000)}}
        return HostileWheel(f"archive {name}", reason, maker, damage)

    return [
        damaged("of no bytes", lambda _: b""),
        damaged("of four bytes", lambda data: data[:4]),
        damaged("cut in half", lambda data: data[: len(data) // 2]),
        damaged("of another kind", lambda _: b"\x1f\x8b" + bytes(500)),
        damaged("behind a program", lambda data: b"#!/bin/sh\n" + data, "no member"),
        damaged("behind another archive", lambda data: data + data),
        damaged("before other data", lambda data: data + bytes(30)),
        damaged("with a comment", lambda data: data[:-2] + b"\4\0evil", "no member"),
        damaged("encrypted", lambda data: _entry(data, 8, "<H", 1), "encrypted"),
        damaged("of an unknown compression", lambda data: _entry(data, 10, "<H", 12),
                "compression"),
        damaged("with a wrong checksum", lambda data: _entry(data, 16, "<I", 1)),
        damaged("of a huge size", lambda data: _entry(data, 24, "<I", 0xFFFFFFF0)),
        damaged("of a size too small", lambda data: _entry(data, 24, "<I", 10)),
        damaged("of a compressed size beyond it", lambda data: _entry(data, 20, "<I", 1 << 30),
                "overlaps"),
        damaged("of an offset beyond it", lambda data: _entry(data, 42, "<I", 1 << 30)),
        damaged("of two members at one place", lambda data: _entry(data, 42, "<I", 0)),
        damaged("with another name in its local header",
                lambda data: data.replace(b"pkg/big", b"pkg/bug", 1)),
        damaged("with broken data", lambda data: data[:150] + b"\xff" * 40 + data[190:]),
        damaged("with many empty directories in its end",
                lambda data: data[:-12] + struct.pack("<HH", 9999, 9999) + data[-8:]),
    ]


def _entry(data: bytes, offset: int, code: str, value: int) -> bytes:
    """Change a field of the directory's entry of pkg/big."""
    place = data.rindex(b"pkg/big") - 46 + offset
    packed = struct.pack(code, value)
    return data[:place] + packed + data[place + len(packed) :]


def _rewritten(data: bytes, file: str, old: bytes, new: bytes) -> bytes:
    """The wheel with a dist-info file changed, and RECORD telling the truth about it."""
    files = read_members(data)
    files[f"{INFO}/{file}"] = files[f"{INFO}/{file}"].replace(old, new)
    return zip_members({**files, f"{INFO}/RECORD": record_of(files)})


def _without(data: bytes, part: str) -> bytes:
    files = {name: body for name, body in read_members(data).items() if part not in name}
    return zip_members(files)


def record_of(files: dict[str, bytes]) -> bytes:
    """A RECORD that tells the truth."""
    lines = []
    for name, body in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(body)}")
    lines = [line for line in lines if not line.startswith(f"{INFO}/RECORD,")]
    return "\n".join([*lines, f"{INFO}/RECORD,,", ""]).encode("utf-8", "replace")


def read_members(data: bytes) -> dict[str, bytes]:
    """Members of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zip_members(files: dict[str, bytes]) -> bytes:
    """An archive of these members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return target.getvalue()
