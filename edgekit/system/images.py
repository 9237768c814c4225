"""Container images out of a set into the host's podman, by digest; nothing is ever pulled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.host_layout import HostLayout
from edgekit.core.release import CarriedImage, Manifest
from edgekit.errors import HostError
from edgekit.system.files import link_or_copy, remove_tree
from edgekit.system.process import run

LOAD_TIMEOUT_S = 900
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


def has_podman() -> bool:
    """True when the host has podman."""
    return shutil.which("podman") is not None


def load_image(image: CarriedImage, manifest: Manifest, layout: HostLayout) -> None:
    """Load an image into podman, give it its name, and check that podman knows it by digest.

    Raises HostError with podman's own words. Loading twice is harmless.
    """
    with _oci_layout(image, manifest, layout) as folder:
        policy = folder.parent / "policy.json"
        # The blobs were verified against the set's signatures; the host's own policy, where there
        # is one, is about registries and is not changed.
        policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}', "utf-8")
        run(
            [
                "podman",
                "load",
                "--quiet",
                "--signature-policy",
                str(policy),
                "--input",
                str(folder),
            ],
            timeout_s=LOAD_TIMEOUT_S,
        )
    # podman 5 takes no name from a folder, podman 4 the folder's; a digest is found by name only.
    run(["podman", "tag", _image_id(image, manifest, layout), image.tagged], timeout_s=60)
    known = run(["podman", "image", "exists", image.pinned], timeout_s=60, check=False)
    if known.returncode != 0:
        raise HostError(
            "podman loaded an image but does not know its digest",
            needed=image.pinned,
            hint="podman images --digests",
        )


def _image_id(image: CarriedImage, manifest: Manifest, layout: HostLayout) -> str:
    """What podman calls an OCI image: the digest of its configuration (image-spec, manifest.md)."""
    (path,) = (path for path in image.blobs if path.parts[-1] == image.manifest.value)
    content = json.loads(layout.blob(manifest.entry(path).digest).read_bytes())
    return str(content["config"]["digest"]).partition(":")[2]


@contextmanager
def _oci_layout(image: CarriedImage, manifest: Manifest, layout: HostLayout) -> Iterator[Path]:
    """An OCI image layout folder made of the store's blobs; removed afterwards."""
    work = layout.staging / f"image-{image.name}"
    remove_tree(work)
    folder = work / "layout"
    try:
        size = 0
        for path in image.blobs:
            entry = manifest.entry(path)
            name = path.parts[-1]
            if name == image.manifest.value:
                size = entry.size
            link_or_copy(layout.blob(entry.digest), folder / "blobs/sha256" / name)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', "utf-8")
        descriptor = {
            "mediaType": MANIFEST_MEDIA_TYPE,
            "digest": str(image.manifest),
            "size": size,
            "annotations": {"org.opencontainers.image.ref.name": image.reference},
        }
        index = {"schemaVersion": 2, "manifests": [descriptor]}
        (folder / "index.json").write_text(json.dumps(index), "utf-8")
        yield folder
    finally:
        remove_tree(work)
