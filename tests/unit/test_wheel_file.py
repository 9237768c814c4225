"""What a wheel may hold, and unpacking one without trusting it."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DiskFullError, RefusedContentError
from edgekit.sources.wheel_file import (
    check_wheel,
    split_wheel_name,
    unpack_wheel,
    wheel_glibc_floor,
)
from tests.support.elf import make_elf
from tests.support.tiny_disk import tiny_disk
from tests.support.wheel_maker import WheelMaker

INFO = "pkg-1.0.dist-info"


def test_a_good_wheel(tmp_path: Path) -> None:
    wheel = WheelMaker(members={
        "pkg/a.so": make_elf("GLIBC_2.17"), "pkg/sub/b.so.1": make_elf("GLIBC_2.28", "GLIBC_2.3"),
        "pkg/none.so": make_elf(), "pkg/foreign.so": b"\x7fELF\x01\x01" + bytes(60),
    }).write(tmp_path)
    facts = check_wheel(wheel)
    assert (facts.name, facts.version, facts.glibc) == ("pkg", "1.0", (2, 28))
    assert (facts.scripts, facts.members) == ((), 8)
    assert wheel_glibc_floor(wheel) == (2, 28)
    moved = wheel.rename(tmp_path / "0123abcd")
    assert check_wheel(moved, filename="pkg-1.0-py3-none-any.whl") == facts


def test_a_wheel_without_programs_has_no_floor(tmp_path: Path) -> None:
    wheel = WheelMaker().write(tmp_path)
    assert wheel_glibc_floor(wheel) is None
    assert check_wheel(wheel).glibc is None


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "traversal": ({"members": {"../evil.py": b""}}, "unsafe path"),
    "inner traversal": ({"members": {"pkg/../../evil.py": b""}}, "unsafe path"),
    "absolute": ({"members": {"/etc/evil": b""}}, "unsafe path"),
    "backslash": ({"members": {"pkg\\evil.py": b""}}, "unsafe path"),
    "drive": ({"members": {"C:/evil.py": b""}}, "unsafe path"),
    "nul": ({"members": {"pkg/a\0b.py": b""}}, "unsafe path"),
    "link": ({"members": {"pkg/l": b"/etc/passwd"}, "modes": {"pkg/l": stat.S_IFLNK | 0o777}},
             "not a regular file"),
    "device": ({"members": {"pkg/d": b""}, "modes": {"pkg/d": stat.S_IFCHR | 0o666}},
               "not a regular file"),
    "pth": ({"members": {"evil.pth": b"import os"}}, "every start"),
    "pth by .data": ({"members": {"pkg-1.0.data/purelib/evil.pth": b"import os"}}, "every start"),
    "false setuptools pth": ({"members": {"distutils-precedence.pth": b"import os"}},
                             "every start"),
    "sitecustomize": ({"members": {"sitecustomize.py": b""}}, "every start"),
    "usercustomize": ({"members": {"usercustomize/__init__.py": b""}}, "every start"),
    "sitecustomize by .data": ({"members": {"pkg-1.0.data/platlib/sitecustomize.so": b""}},
                               "every start"),
    "script": ({"members": {"pkg-1.0.data/scripts/run": b"#!python"}}, "scripts run"),
    "odd .data": ({"members": {"pkg-1.0.data/purelib": b""}}, ".data"),
    "twice": ({"twice": ("pkg/__init__.py",)}, "twice"),
    "one place": ({"members": {"pkg-1.0.data/purelib/pkg/__init__.py": b""}}, "land on one name"),
    "below a file": ({"members": {"pkg/__init__.py/x.py": b""}}, "below a file"),
    "twice by case": ({"members": {"pkg/__INIT__.py": b""}}, "twice"),
    "other bytes": ({"record": {"pkg/__init__.py": "pkg/__init__.py,sha256=" + "A" * 43 + ",1"}},
                    "not what RECORD says"),
    "unrecorded": ({"record": {"pkg/__init__.py": None}}, "not in RECORD"),
    "hashless": ({"record": {"pkg/__init__.py": "pkg/__init__.py,,"}}, "no usable hash"),
    "weak hash": ({"record": {"pkg/__init__.py": "pkg/__init__.py,md5=abc,1"}}, "no usable hash"),
    "recorded only": ({"record": {"x": "pkg/ghost.py,sha256=" + "A" * 43 + ",1"}},
                      "not in the archive"),
    "other name": ({"metadata_name": "evil"}, "METADATA"),
    "second dist-info": ({"members": {"zzz-1.dist-info/METADATA": b""}}, "dist-info"),
    "bad elf": ({"members": {"pkg/a.so": make_elf("GLIBC_2.17", chain_ok=False)}}, "ELF"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("change", "reason"), BAD.values(), ids=BAD.keys())
def test_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    wheel = WheelMaker(**change).write(tmp_path)
    with pytest.raises(RefusedContentError) as caught:
        check_wheel(wheel)
    assert reason in caught.value.message
    assert caught.value.where == wheel.name
    with pytest.raises(RefusedContentError):
        unpack_wheel(wheel, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.name]


def test_allowed_scripts_are_listed(tmp_path: Path) -> None:
    wheel = WheelMaker(members={"pkg-1.0.data/scripts/run": b"#!python"}).write(tmp_path)
    assert check_wheel(wheel, allow_scripts=["run", "walk"]).scripts == ("run",)


def test_damaged_archives(tmp_path: Path) -> None:
    wheel = WheelMaker(members={"pkg/data.txt": bytes(100_000)}).write(tmp_path)
    good = wheel.read_bytes()
    for data in (b"", b"PK", good[: len(good) // 2], good[:200] + b"\xff" * 40 + good[240:]):
        wheel.write_bytes(data)
        with pytest.raises(RefusedContentError):
            check_wheel(wheel)


def test_unpacking(tmp_path: Path) -> None:
    wheel = WheelMaker(
        members={"pkg/tool": b"#!/bin/sh\n", "pkg-1.0.data/platlib/pkg/x.so": make_elf(),
                 "pkg-1.0.data/data/share/doc.txt": b"doc"},
        modes={"pkg/tool": stat.S_IFREG | 0o4777},
    ).write(tmp_path)
    out = tmp_path / "deep" / "out"
    unpack_wheel(wheel, out)
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [f"{INFO}/METADATA", f"{INFO}/RECORD", f"{INFO}/WHEEL", "pkg/__init__.py",
                     "pkg/tool", "pkg/x.so"]
    assert (out / "pkg/tool").stat().st_mode & 0o7777 == 0o755
    assert (out / "pkg/__init__.py").stat().st_mode & 0o7777 == 0o644


def test_unpacking_on_a_full_disk(tmp_path: Path) -> None:
    wheel = WheelMaker(members={"pkg/big": bytes(4 << 20)}).write(tmp_path)
    with tiny_disk(tmp_path / "disk", 2) as disk:
        with pytest.raises(DiskFullError):
            unpack_wheel(wheel, disk / "out")
        assert list(disk.iterdir()) == []


def test_a_bomb_is_not_read(tmp_path: Path) -> None:
    wheel = WheelMaker(members={"pkg/big": b"x"}).write(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        place = archive.start_dir
    data = bytearray(wheel.read_bytes())
    entry = data.index(b"pkg/big", place) - 46
    data[entry + 24 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    wheel.write_bytes(bytes(data))
    with pytest.raises(RefusedContentError):
        check_wheel(wheel)


@pytest.mark.parametrize("name", ["a.zip", "a-1.whl", "a-1-py3-none-any.tar.gz", "../a.whl"])
def test_file_names(name: str) -> None:
    assert split_wheel_name("My_Pkg-1.0_local-1-cp311-abi3-manylinux_2_17_x86_64.whl") == (
        "my-pkg", "1.0-local")
    with pytest.raises(RefusedContentError):
        split_wheel_name(name)
