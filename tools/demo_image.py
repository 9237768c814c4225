"""A tiny container image for the demo and the tests: busybox and a script that says hello.

    python -m tools.demo_image LAYOUT           write an OCI layout with two architectures
    python -m tools.demo_image LAYOUT --push PORT   and push it to the demo registry

The same busybox gives the same bytes every time: no clock, no user, sorted members. Only the image
of the building machine's architecture can run; the other one differs by a marker file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from edgekit.errors import MissingToolError
from edgekit.system.process import run
from tools.demo_registry import NAME

REFERENCE = f"{NAME}/edgekit/hello:1.0"
GREETING = "hello from edgekit"
ARCHITECTURES = ("amd64", "arm64")
BUSYBOX = Path("/bin/busybox")
PUSH_TIMEOUT_S = 120.0

_APPLETS = ("cat", "echo", "id", "ls", "sh", "sleep", "wget")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = "1970-01-01T00:00:00Z"


def write_layout(folder: Path, *, marker: str = "") -> str:
    """Write the OCI layout; returns the digest of its two-architecture index.

    `marker` goes into a file of every image, to make another image of the same name. Raises
    MissingToolError without a static busybox.
    """
    if not BUSYBOX.is_file():
        raise MissingToolError("no static busybox", where=str(BUSYBOX),
                               hint="apt-get install busybox-static")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    manifests = [_image(blobs, arch, marker) for arch in ARCHITECTURES]
    top = store_json(
        blobs, _INDEX, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    )
    write_index(folder, top, "hello")
    return str(top["digest"])


def write_index(folder: Path, top: dict[str, Any], name: str) -> None:
    """What makes a folder of blobs an OCI layout: `top` is its one image, under `name`."""
    named = {**top, "annotations": {"org.opencontainers.image.ref.name": name}}
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(
        _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [named]})
    )


def push(layout: Path, port: int, reference: str = REFERENCE) -> None:
    """Copy the layout, both architectures and unchanged digests, to the demo registry on `port`.

    skopeo maps registry names for reading only, so the address is put in here. Raises
    MissingToolError without skopeo, HostError when it fails.
    """
    address = f"127.0.0.1:{port}{reference.removeprefix(NAME)}"
    run(["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false",
         f"oci:{layout}:hello", f"docker://{address}"], timeout_s=PUSH_TIMEOUT_S)


def _image(blobs: Path, arch: str, marker: str) -> dict[str, Any]:
    tar = _layer_tar(arch, marker)
    layer = store_blob(blobs, _LAYER, gzip.compress(tar, 9, mtime=0))
    config = {
        "architecture": arch, "os": "linux", "created": _EPOCH,
        "config": {"Entrypoint": ["/bin/sh", "/hello.sh"], "Env": ["PATH=/bin"], "User": "65534"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]},
        "history": [{"created": _EPOCH, "created_by": "tools/demo_image.py"}],
    }
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST,
                "config": store_json(blobs, _CONFIG, config), "layers": [layer]}
    entry = store_json(blobs, _MANIFEST, manifest)
    return {**entry, "platform": {"architecture": arch, "os": "linux"}}


def _layer_tar(arch: str, marker: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add_member(tar, "bin", kind=tarfile.DIRTYPE)
        add_member(tar, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        for applet in _APPLETS:
            add_member(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        add_member(tar, "edgekit-arch", f"{arch}{marker}\n".encode())
        add_member(tar, "hello.sh", f'echo "{GREETING}"\nexec "$@"\n'.encode(), mode=0o755)
        add_member(tar, "tmp", kind=tarfile.DIRTYPE, mode=0o1777)
    return buffer.getvalue()


def add_member(
    tar: tarfile.TarFile, name: str, data: bytes = b"", *, mode: int = 0o644,
    kind: bytes = tarfile.REGTYPE, link: str = "",
) -> None:
    """A file, folder or link of a layer, with neither time nor owner."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    info.mode = 0o755 if kind == tarfile.DIRTYPE and mode == 0o644 else mode
    tar.addfile(info, io.BytesIO(data))


def store_json(blobs: Path, media_type: str, value: object) -> dict[str, Any]:
    """Store a document; its descriptor."""
    return store_blob(blobs, media_type, _json(value))


def store_blob(blobs: Path | None, media_type: str, data: bytes) -> dict[str, Any]:
    """Store a blob where it is given a folder; its descriptor."""
    digest = _digest(data)
    if blobs is not None:
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main() -> None:
    """Write the layout, print its digest, and push it when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("layout", type=Path)
    parser.add_argument("--push", type=int, metavar="PORT",
                        help=f"push as {REFERENCE} to the demo registry on this port")
    arguments = parser.parse_args()
    print(write_layout(arguments.layout))
    if arguments.push:
        push(arguments.layout, arguments.push)


if __name__ == "__main__":
    main()
