"""A set of 100 GB: looking into it reads a few MB and takes little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.layout import plan_layout
from edgekit.core.names import RelPath
from edgekit.core.release import BLOCK_BYTES, Entry, Manifest, Volume, VolumeTable, volume_name
from edgekit.system.set_writer import SetDraft, write_documents
from edgekit.system.trust_store import HostTrust
from edgekit.system.volumes import hash_view, read_volumes
from tests.support.sets import ANY_HOST, EXPIRES, RootBuilder, quiet, signer, verify

ROOT = Path(__file__).resolve().parents[2]
SIZES = (3_000, 37_000_000_000, 63_000_000_000)
VOLUME_BYTES = 3896 << 20
MAX_READ_BYTES = 8 << 20
MAX_ADDED_MIB = 64

INSPECT = """
import re, sys
from pathlib import Path
from edgekit.core.host_layout import HostLayout
from edgekit.operations.verify import Trusting, inspection, verify_metadata

def proc(name, field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/" + name).read_text()).group(1))

trusting = Trusting(HostLayout(Path(sys.argv[2])), fingerprint=sys.argv[3])
before, memory = proc("io", "rchar"), proc("status", "VmRSS")
verified = verify_metadata((Path(sys.argv[1]),), trusting, check_installer=False)
table = inspection(verified)
print(proc("io", "rchar") - before, (proc("status", "VmHWM") - memory) // 1024, table["bytes"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of zeros that take no room on the disk, and documents that vouch for them."""
    base = tmp_path_factory.mktemp("huge")
    folder = base / "demo"
    folder.mkdir()
    digests = [Digest.of(b"%d" % size) for size in SIZES]
    sizes, extents = plan_layout(zip(digests, SIZES, strict=True), volume_bytes=VOLUME_BYTES)
    zeros = hash_view(memoryview(bytes(BLOCK_BYTES)), "sha384")
    volumes = []
    for number, size in enumerate(sizes):
        name = volume_name(number)
        with (folder / name).open("wb") as file:
            file.truncate(size)
        rest = size % BLOCK_BYTES
        blocks = (zeros,) * (size // BLOCK_BYTES)
        if rest:
            blocks += (hash_view(memoryview(bytes(rest)), "sha384"),)
        volumes.append(Volume(name, size, Digest.of(name.encode()), blocks))
    table = VolumeTable("sha384", BLOCK_BYTES, tuple(volumes), tuple(extents.items()))
    installer = base / "installer"
    with installer.open("wb") as file:
        file.truncate(32 << 20)
    entries = tuple(
        Entry(RelPath(f"documents/{number}.bin"), "document", size, digest)
        for number, (size, digest) in enumerate(zip(SIZES, digests, strict=True))
    )
    manifest = Manifest(
        name="demo", version="1.0.0", created=1_700_000_000, users=1, requirements=ANY_HOST,
        entries=entries, engines=(), models=(), images=(), rehearsed_on="",
    )
    root = RootBuilder()
    write_documents(folder, SetDraft(
        manifest=manifest, blobs=(), installer=installer, epoch=1, sequence=1, expires=EXPIRES,
        digest_algorithm="sha384", roots=(root.data(),),
        signers=tuple(signer(name) for name in root.signers),
    ), table)
    return folder


def test_looking_into_a_hundred_gigabytes_reads_a_few_megabytes(
    folder: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, str(folder), str(tmp_path),
         RootBuilder().trusted().fingerprint],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    read, added, total = map(int, done.stdout.split())
    print(f"read {read} bytes, {added} MiB of memory, of a set of {total} bytes")
    assert total == sum(SIZES) > 100_000_000_000 - 1
    assert read <= MAX_READ_BYTES
    assert added <= MAX_ADDED_MIB


def test_a_small_blob_is_read_without_the_rest(folder: Path) -> None:
    verified = verify(HostTrust(RootBuilder().trusted()), folder)
    small = verified.manifest.entries[0].digest
    read = read_volumes(verified.table, verified.volume_path, wanted=frozenset({small}),
                        sink=None, listener=quiet, task="verify")
    assert read == SIZES[0]
