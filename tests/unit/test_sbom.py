"""The bill of materials and the licence texts: made, checked against the schema, read, shown."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cyclonedx.schema
import fastjsonschema
import pytest

from edgekit.core import set_files
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.lock import (
    Lock,
    LockedBlob,
    LockedFile,
    LockedImage,
    LockedVariant,
    LockedWheel,
    LockedWheelhouse,
)
from edgekit.core.names import RelPath
from edgekit.core.provenance import describe_build
from edgekit.core.recipe import Recipe, parse_recipe
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Entry,
    Extent,
    Manifest,
    Requirements,
    Volume,
    VolumeTable,
    volume_name,
)
from edgekit.core.sbom import parse_sbom
from edgekit.errors import FormatError, RefusedContentError, SetShapeError
from edgekit.operations.verify import inspection
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.host_program import FrozenLibrary
from edgekit.sources.licenses import (
    WheelLicense,
    read_installed_license,
    read_terms,
    read_wheel_license,
)
from edgekit.sources.sbom import Gathered, render_sbom
from edgekit.system.set_writer import SetDraft, write_documents
from tests.support.sets import EXPIRES, RootBuilder, SetBuilder, build_of, signer, verify
from tests.support.wheel_maker import WheelMaker

RECIPE = """\
format = 1
name = "demo"
version = "1.0.0"
sequence = 1
description = "for tests"
[target]
arch = "x86_64"

[[model]]
name = "small"
license = "Apache-2.0"
base_model = "owner/base"
terms = "TERMS.txt"
[[model.variant]]
format = "gguf"
quantization = "Q4_K"
source = { hub = "Owner/Small-GGUF", revision = "main" }
files = ["small.gguf"]

[[model]]
name = "sharded"
license = "Llama 3 Community License"
[[model.variant]]
format = "safetensors"
quantization = "BF16"
source = { folder = "weights" }
files = ["a.safetensors", "sub/b.safetensors"]

[[engine]]
kind = "llama.cpp"
provider = "wheel"
package = "engine==1.0"

[[wheels]]
name = "tools"
requirements = ["tool==2.0"]

[[image]]
name = "hello"
reference = "registry.internal:5000/team/Hello:1.0"
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha(text: str, algorithm: str = "sha256") -> Digest:
    return Digest.of(text.encode(), algorithm)


def wheel(name: str, version: str) -> LockedWheel:
    return LockedWheel(name, version, f"{name}-{version}-py3-none-any.whl", 10, sha(name))


def gathered(recipe_text: str = RECIPE) -> Gathered:
    """A recipe with one of everything, its lock, and the manifest of its set."""
    recipe = parse_recipe(recipe_text.encode(), file="demo.toml")
    lock = Lock(
        recipe=Digest.of(recipe_text.encode()),
        variants=(
            LockedVariant("small", 0, COMMIT, (_file("small.gguf"),)),
            LockedVariant("sharded", 0, None, (_file("a.safetensors"), _file("sub/b.safetensors"))),
        ),
        wheelhouses=(
            LockedWheelhouse("engine:llama.cpp:wheel", (wheel("engine", "1.0"),)),
            LockedWheelhouse("wheels:tools", (wheel("tool", "2.0"),)),
        ),
        images=(
            LockedImage(
                "hello",
                "registry.internal:5000/team/Hello:1.0",
                LockedBlob("application/vnd.oci.image.manifest.v1+json", 5, sha("image")),
                (LockedBlob("application/vnd.oci.image.layer.v1.tar", 6, sha("layer")),),
            ),
        ),
    )
    return Gathered(
        recipe,
        lock,
        manifest(recipe),
        {"engine-1.0-py3-none-any.whl": "MIT", "tool-2.0-py3-none-any.whl": ""},
        (FrozenLibrary("tuf", "7.0.1", WheelLicense("Apache-2.0 OR MIT", ())),),
        "3.11.2",
    )


def _file(path: str) -> LockedFile:
    return LockedFile(RelPath(path), 4, sha(path))


def manifest(recipe: Recipe) -> Manifest:
    paths = {
        "engines/llama.cpp-wheel/run": "engine",
        "models/sharded/0-bf16/a.safetensors": "weights",
        "models/sharded/0-bf16/sub/b.safetensors": "weights",
        "models/small/0-q4_k/small.gguf": "weights",
        "wheels/tools/tool-2.0-py3-none-any.whl": "wheel",
    }
    shape = tuple(
        (key, 1)
        for key in (
            "layers",
            "width",
            "ffn",
            "heads",
            "kv_heads",
            "key_width",
            "value_width",
            "context",
            "vocabulary",
        )
    )
    weights = [RelPath(path) for path, role in paths.items() if role == "weights"]
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        created=1_700_000_000,
        users=1,
        requirements=Requirements("x86_64", (2, 36), (), 249),
        entries=tuple(
            Entry(RelPath(path), role, 4, sha(path, "sha384"))
            for path, role in sorted(paths.items())
        ),
        engines=(
            EnginePack(
                "llama.cpp",
                "wheel",
                "1.0",
                RelPath("engines/llama.cpp-wheel"),
                RelPath("engines/llama.cpp-wheel/run"),
            ),
        ),
        models=(
            _model("small", "Apache-2.0", CarriedVariant("gguf", "Q4_K", (weights[2],), 4, shape)),
            _model(
                "sharded",
                "Llama 3 Community License",
                CarriedVariant("safetensors", "BF16", tuple(weights[:2]), 8, ()),
            ),
        ),
        images=(),
        rehearsed_on="",
    )


def _model(name: str, license_: str, variant: CarriedVariant) -> CarriedModel:
    return CarriedModel(name, 4096, license_, "llama", 3_000_000, (variant,), ())


def cyclonedx_schema() -> Callable[[object], object]:
    """A validator for CycloneDX 1.6, of the schema files that the library carries.

    The library's own validator needs jsonschema, and with it attrs, which the freezer would find.
    """
    folder = Path(cyclonedx.schema.__file__).parent / "_res"

    def load(address: str) -> Any:
        return json.loads((folder / address.rpartition("/")[2]).read_text("utf-8"))

    schema = load("/bom-1.6.SNAPSHOT.schema.json")
    found: Callable[[object], object] = fastjsonschema.compile(schema, handlers={"http": load})
    return found


def component(table: dict[str, Any], reference: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in table["components"] if c["bom-ref"] == reference)
    return found


def hashes(item: dict[str, Any]) -> dict[str, str]:
    return {entry["alg"]: entry["content"] for entry in item["hashes"]}


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render_sbom(gathered()))
    return found


class TestDocument:
    def test_it_is_valid_cyclonedx(self, table: dict[str, Any]) -> None:
        validate = cyclonedx_schema()
        validate(table)
        for change in ({"bomFormat": "x"}, {"components": [{"type": "file", "name": "x", "y": 1}]}):
            with pytest.raises(fastjsonschema.JsonSchemaException):
                validate(table | change)

    def test_it_depends_on_recipe_lock_and_set_alone(self) -> None:
        assert render_sbom(gathered()) == render_sbom(gathered())

    def test_another_lock_gives_another_serial_number(self, table: dict[str, Any]) -> None:
        other = json.loads(render_sbom(gathered(RECIPE + "# changed\n")))
        assert other["serialNumber"] != table["serialNumber"]
        assert table["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"

    def test_weights_from_a_hub(self, table: dict[str, Any]) -> None:
        model = component(table, "model:small:0")
        assert model["type"] == "machine-learning-model"
        assert model["version"] == "Q4_K"
        assert hashes(model) == {
            "SHA-256": sha("small.gguf").value,
            "SHA-384": sha("models/small/0-q4_k/small.gguf", "sha384").value,
        }
        assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
        assert model["purl"].startswith("pkg:huggingface/")
        assert model["purl"].endswith(COMMIT)
        assert COMMIT in model["purl"]
        assert model["pedigree"]["ancestors"][0]["name"] == "owner/base"
        facts = {entry["name"]: entry["value"] for entry in model["properties"]}
        assert facts["edgekit:parameters"] == "3000000"
        assert facts["edgekit:commit"] == COMMIT
        assert facts["edgekit:terms"] == "licenses/models/small"

    def test_weights_in_several_files(self, table: dict[str, Any]) -> None:
        model = component(table, "model:sharded:0")
        assert model["licenses"] == [{"license": {"name": "Llama 3 Community License"}}]
        assert "purl" not in model
        assert [hashes(part)["SHA-256"] for part in model["components"]] == [
            sha("a.safetensors").value,
            sha("sub/b.safetensors").value,
        ]

    def test_wheels_engine_and_image(self, table: dict[str, Any]) -> None:
        tool = component(table, "wheel:tool-2.0-py3-none-any.whl")
        assert tool["purl"].startswith("pkg:pypi/tool@2.0")
        assert hashes(tool)["SHA-256"] == sha("tool").value
        assert (
            hashes(tool)["SHA-384"] == sha("wheels/tools/tool-2.0-py3-none-any.whl", "sha384").value
        )
        engine = component(table, "engine:llama.cpp:wheel")
        assert (engine["type"], engine["version"]) == ("application", "1.0")
        assert engine["licenses"] == [{"license": {"id": "MIT"}}]
        depends = {d["ref"]: d.get("dependsOn") for d in table["dependencies"]}
        assert depends["engine:llama.cpp:wheel"] == ["wheel:engine-1.0-py3-none-any.whl"]
        image = component(table, "image:hello")
        assert image["type"] == "container"
        assert image["version"] == "1.0"
        assert image["purl"] == (
            f"pkg:oci/hello@sha256:{sha('image').value}"
            "?repository_url=registry.internal:5000/team/hello&tag=1.0"
        )

    def test_the_host_program_and_what_is_inside(self, table: dict[str, Any]) -> None:
        library = component(table, "library:tuf")
        assert library["purl"] == "pkg:pypi/tuf@7.0.1"
        assert library["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]
        assert component(table, "library:cpython")["version"] == "3.11.2"
        depends = {d["ref"]: d.get("dependsOn") for d in table["dependencies"]}
        assert depends["program:edgekit"] == ["library:cpython", "library:tuf"]

    def test_it_is_read_back(self) -> None:
        sbom = parse_sbom(render_sbom(gathered()))
        assert sbom.counts() == {
            "application": 2,
            "container": 1,
            "library": 3,
            "machine-learning-model": 2,
            "platform": 1,
        }
        assert sbom.licenses()["MIT"] == ("engine", "llama.cpp")
        assert "tool" in sbom.licenses()[""]

    @pytest.mark.parametrize(
        "change",
        [
            {"bomFormat": "SPDX"},
            {"specVersion": "1.4"},
            {"serialNumber": "x"},
            {"components": [{"type": "spell", "name": "x"}]},
            {"components": [{"type": "file", "name": "a\x1b[2J"}]},
            {"components": [{"type": "file", "name": "x", "licenses": ["MIT"]}]},
        ],
    )
    def test_what_is_shown_is_checked(self, table: dict[str, Any], change: dict[str, Any]) -> None:
        data = json.dumps(table | change, sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(FormatError):
            parse_sbom(data)


class TestProvenanceInputs:
    def test_every_locked_input_is_named_with_its_digest(self) -> None:
        parts = gathered()
        build = describe_build(parts.recipe, parts.lock, created=1, locked=True, edgekit="0.1.0")
        found = {item.name: (item.digest, item.uri) for item in build.inputs}
        assert found["models/small/0/small.gguf"] == (
            sha("small.gguf"),
            f"pkg:huggingface/Owner/Small-GGUF@{COMMIT}",
        )
        assert found["models/sharded/0/sub/b.safetensors"] == (sha("sub/b.safetensors"), "")
        name = "wheels:tools/tool-2.0-py3-none-any.whl"
        assert found[name] == (sha("tool"), "pkg:pypi/tool@2.0")
        assert {digest for digest, _ in found.values()} >= {sha("image"), sha("layer")}
        assert len(found) == 7


class TestLicenseTexts:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> BlobCache:
        return BlobCache(tmp_path / "cache")

    def test_texts_of_a_wheel(self, tmp_path: Path, cache: BlobCache) -> None:
        maker = WheelMaker(
            members={
                "pkg-1.0.dist-info/licenses/LICENSE": b"new place",
                "pkg-1.0.dist-info/licenses/vendor/COPYING": b"of another",
                "pkg-1.0.dist-info/NOTICE.txt": b"old place",
                "pkg-1.0.dist-info/licenses/Notice/x": b"in a folder of that name",
                "pkg-1.0.dist-info/NOTICE": b"cannot be beside that folder",
                "pkg/LICENSE": b"somewhere else",
            }
        )
        found = read_wheel_license(maker.write(tmp_path), maker.filename, cache)
        assert found.name == ""
        assert {str(text.name): text.place.read_bytes() for text in found.texts} == {
            "LICENSE": b"new place",
            "NOTICE.txt": b"old place",
            "Notice/x": b"in a folder of that name",
            "vendor/COPYING": b"of another",
        }

    @pytest.mark.parametrize(
        ("headers", "name"),
        [
            ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
            ("License: BSD", "BSD"),
            ("License: " + "x" * 200, ""),
            ("Classifier: License :: OSI Approved :: MIT License", "MIT License"),
        ],
    )
    def test_the_named_license(
        self, tmp_path: Path, cache: BlobCache, headers: str, name: str
    ) -> None:
        maker = WheelMaker(metadata_name=f"pkg\n{headers}")
        found = read_wheel_license(maker.write(tmp_path), maker.filename, cache)
        assert found.name == name

    def test_texts_of_an_installed_library(self, cache: BlobCache) -> None:
        found = read_installed_license(importlib.metadata.distribution("cryptography"), cache)
        assert found.name == "Apache-2.0 OR BSD-3-Clause"
        assert {str(text.name) for text in found.texts} >= {"LICENSE.APACHE", "LICENSE.BSD"}

    def test_a_huge_text_is_refused(self, tmp_path: Path, cache: BlobCache) -> None:
        maker = WheelMaker(members={"pkg-1.0.dist-info/LICENSE": bytes((1 << 20) + 1)})
        with pytest.raises(RefusedContentError):
            read_wheel_license(maker.write(tmp_path), maker.filename, cache)

    def test_terms_are_texts(self, tmp_path: Path, cache: BlobCache) -> None:
        terms = tmp_path / "LICENSE"
        terms.write_text("do no harm\n")
        assert read_terms(terms, "terms of x", cache).place.read_bytes() == b"do no harm\n"
        for bad in (b"\xff\xfe", b"", b"a\0b"):
            terms.write_bytes(bad)
            with pytest.raises(RefusedContentError):
                read_terms(terms, "terms of x", cache)


class TestSet:
    def test_a_set_shows_it(self, tmp_path: Path) -> None:
        data = render_sbom(gathered())
        builder = SetBuilder(
            sbom=data,
            entries={"licenses/models/small/LICENSE": b"text"},
            role="license",
        )
        table = inspection(verify(builder.host(), builder.write(tmp_path / "set")))
        assert table["sbom"]["components"]["library"] == 3
        assert table["licenses"] == [{"path": "licenses/models/small/LICENSE", "bytes": 4}]

    def test_one_over_the_cap_is_refused_unread(self, tmp_path: Path) -> None:
        builder = SetBuilder(sbom=render_sbom(gathered()))
        folder = builder.write(tmp_path / "set")
        with (folder / set_files.SBOM).open("r+b") as file:
            file.truncate(set_files.MAX_SBOM_BYTES + 1)
        with pytest.raises(SetShapeError) as caught:
            verify(builder.host(), folder)
        assert "too large" in caught.value.message


READS = """
import sys
from edgekit.cli.main import main

def read_bytes():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])

assert main(sys.argv[1:]) == 0  # imports what it needs
before = read_bytes()
assert main(sys.argv[1:]) == 0
print(read_bytes() - before, file=sys.stderr)
"""


class TestReading:
    def test_inspecting_100_gb_reads_a_few_mb(self, tmp_path: Path) -> None:
        folder = large_set(tmp_path, 100 * 10**9)
        assert sum(path.stat().st_size for path in folder.glob("vol-*.ekv")) == 100 * 10**9
        fingerprint = RootBuilder().trusted().fingerprint
        for extra in ([], ["--sbom"], ["--provenance"], ["--json"]):
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    READS,
                    "inspect",
                    str(folder),
                    "--root",
                    str(tmp_path),
                    "--fingerprint",
                    fingerprint,
                    *extra,
                ],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            assert 100_000 < int(done.stderr.splitlines()[-1]) < 16 << 20


def large_set(place: Path, size: int) -> Path:
    """A signed set of `size` bytes in sparse volumes, whose blocks nobody has hashed."""
    folder = place / "large"
    folder.mkdir()
    (place / "installer").write_bytes(bytes(32 << 20))
    whole = MAX_VOLUME_BYTES // BLOCK_BYTES * BLOCK_BYTES
    sizes = [min(whole, size - start) for start in range(0, size, whole)]
    for index, volume_size in enumerate(sizes):
        with (folder / volume_name(index)).open("wb") as file:
            file.truncate(volume_size)
    weights = sha("weights", "sha384")
    builder = SetBuilder()
    empty = builder._manifest(())  # the large entry cannot be written by the builder
    draft = SetDraft(
        manifest=replace(
            empty, entries=(Entry(RelPath("models/large.gguf"), "weights", size, weights),)
        ),
        blobs=(),
        installer=place / "installer",
        epoch=1,
        sequence=1,
        expires=EXPIRES,
        digest_algorithm="sha384",
        roots=(RootBuilder().data(),),
        signers=(signer("ann"), signer("ben")),
        sbom=render_sbom(gathered()),
        build=build_of(inputs=2000),
    )
    volumes = tuple(
        Volume(
            volume_name(index),
            volume_size,
            sha(str(index), "sha384"),
            (sha(str(index), "sha384").value,) * -(-volume_size // BLOCK_BYTES),
        )
        for index, volume_size in enumerate(sizes)
    )
    extents = tuple(Extent(index, 0, length) for index, length in enumerate(sizes))
    write_documents(
        folder, draft, VolumeTable("sha384", BLOCK_BYTES, volumes, ((weights, extents),))
    )
    return folder
