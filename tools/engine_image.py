"""A container image made of a llama.cpp pack: its files, the C library, and nothing else.

    python -m tools.engine_image TREE LAYOUT    from a pack's folder to an OCI layout

The server is the image's entry point, as it is in upstream's own images, and beside it lie all
levels of its arithmetic. The same pack gives the same bytes every time.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
from pathlib import Path

from edgekit.core.cpu_levels import level_of
from edgekit.system.process import run
from tools.demo_image import add_member, store_blob, store_json, write_index
from tools.demo_registry import NAME

REFERENCE = f"{NAME}/edgekit/llama-server:1.0"
_SERVER = "llama-server"
_LOADER = "/lib64/ld-linux-x86-64.so.2"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = "1970-01-01T00:00:00Z"


def write_engine_layout(tree: Path, layout: Path) -> str:
    """Write the OCI layout of an image for this machine's architecture; returns its digest."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    tar = _layer(tree)
    layer = store_blob(blobs, _LAYER, gzip.compress(tar, 1, mtime=0))
    config = {
        "architecture": "amd64", "os": "linux", "created": _EPOCH,
        "config": {"Entrypoint": [f"/app/{_SERVER}"], "User": "65534"},
        "rootfs": {"type": "layers", "diff_ids": [store_blob(None, _LAYER, tar)["digest"]]},
    }
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST,
                "config": store_json(blobs, _CONFIG, config), "layers": [layer]}
    top = store_json(blobs, _MANIFEST, manifest)
    write_index(layout, top, "engine")
    return str(top["digest"])


def push_engine(layout: Path, port: int) -> None:
    """Copy the layout to the demo registry on `port`. Raises MissingToolError, HostError."""
    address = f"127.0.0.1:{port}{REFERENCE.removeprefix(NAME)}"
    run(["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
         f"oci:{layout}:engine", f"docker://{address}"], timeout_s=300)


def _layer(tree: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("app", "lib64", "tmp"):
            add_member(tar, folder, kind=tarfile.DIRTYPE)
        add_member(tar, _LOADER.lstrip("/"), Path(_LOADER).read_bytes(), mode=0o755)
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                mode = 0o755 if path.name == _SERVER or level_of(path.name) is None else 0o644
                add_member(tar, f"app/{path.name}", path.read_bytes(), mode=mode)
        for name, library in _c_library(tree).items():
            add_member(tar, f"app/{name}", library.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _c_library(tree: Path) -> dict[str, Path]:
    """What the pack takes from a host, by the loader's name; here from this machine."""
    found: dict[str, Path] = {}
    own = {path.name for path in tree.iterdir()}
    for file in (tree / _SERVER, *sorted(tree.glob("lib*.so*"))):
        for line in run(["ldd", str(file)], timeout_s=60).text.splitlines():
            name, arrow, place = line.strip().partition(" => ")
            path = Path(place.split(" (")[0])
            if arrow and name not in own and path.is_absolute():
                found[name] = path.resolve(strict=True)
    return dict(sorted(found.items()))


def main() -> None:
    """Write the layout and print its digest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tree", type=Path)
    parser.add_argument("layout", type=Path)
    arguments = parser.parse_args()
    print(write_engine_layout(arguments.tree.resolve(), arguments.layout))


if __name__ == "__main__":
    main()
