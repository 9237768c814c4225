"""The GNU C library floor of ELF files: made ones, broken ones, and this machine's own."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.elf import is_elf, needed_glibc
from edgekit.errors import FormatError
from edgekit.system.process import run
from tests.support.elf import make_elf


@pytest.mark.parametrize(("versions", "floor"), [
    (("GLIBC_2.2.5",), (2, 2)),
    (("GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.17"), (2, 34)),
    (("GLIBC_2.9", "GLIBC_2.10"), (2, 10)),
    (("GLIBC_2.4", "GLIBC_ABI_DT_RELR"), (2, 36)),
    (("GLIBC_PRIVATE",), None),
    (("GLIBCXX_3.4.30", "CXXABI_1.3"), None),
    ((), None),
])
def test_floor(versions: tuple[str, ...], floor: tuple[int, int] | None) -> None:
    assert needed_glibc(make_elf(*versions)) == floor
    assert needed_glibc(memoryview(make_elf(*versions))) == floor


@pytest.mark.parametrize("data", [
    b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(100),
    b"\x7fELF\x02\x02" + bytes(100), make_elf("GLIBC_2.17")[:100],
    make_elf("GLIBC_2.17", chain_ok=False),
    make_elf("GLIBC_2.17").replace(b"GLIBC_2.17\0", b"GLIBC_2.17A"),
])
def test_malformed(data: bytes) -> None:
    with pytest.raises(FormatError):
        needed_glibc(data)


def test_lists_are_bounded() -> None:
    data = bytearray(make_elf("GLIBC_2.17"))
    data[56:58] = (0xFFFF).to_bytes(2, "little")
    with pytest.raises(FormatError) as caught:
        needed_glibc(bytes(data))
    assert "65535 program headers" in (caught.value.found or "")


@given(st.integers(0, len(make_elf("GLIBC_2.17", "GLIBC_2.3")) - 1), st.binary(min_size=1,
                                                                              max_size=8))
def test_changed_bytes_never_crash(offset: int, patch: bytes) -> None:
    data = bytearray(make_elf("GLIBC_2.17", "GLIBC_2.3"))
    data[offset : offset + len(patch)] = patch
    try:
        needed_glibc(bytes(data))
    except FormatError:
        return


def test_agrees_with_readelf() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("cannot run here: no readelf")
    program = Path(sys.executable).resolve()
    data = program.read_bytes()
    if not is_elf(data):
        pytest.skip("cannot run here: this Python is not an ELF file")
    text = run(["readelf", "-V", "--wide", str(program)], timeout_s=60).stdout.decode()
    needs = text[text.index("Version needs") :]
    wanted = max((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", needs))
    assert needed_glibc(data) == wanted
