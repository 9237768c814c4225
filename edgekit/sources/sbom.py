"""The bill of materials of a set: CycloneDX 1.6, made on the connected side when all is gathered.

Components are the models' weights (one per variant), the engines, the host program with the
libraries inside it, every wheel and every container image. The files of the frozen programs are in
the manifest and are not repeated here. The document
is canonical JSON and depends on recipe, lock and set alone: its serial number comes from the lock,
its time from the set.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    HashAlgorithm,
    HashType,
    Property,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import License
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from edgekit import __version__
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.lock import Lock, LockedImage, LockedWheel, encode_lock
from edgekit.core.names import RelPath
from edgekit.core.recipe import AdapterRecipe, HubSource, ModelRecipe, Recipe, Variant
from edgekit.core.release import Manifest
from edgekit.core.set_files import MAX_SBOM_BYTES
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import FormatError
from edgekit.sources.host_program import FrozenLibrary

_ALGORITHMS = {"sha256": HashAlgorithm.SHA_256, "sha384": HashAlgorithm.SHA_384}
_DEFAULT_REGISTRY = "docker.io"
HOST_PROGRAM = RelPath("runtime/edgekit")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the document describes. `wheel_licenses` maps wheel file names to licence names.

    `libraries` are inside the host program, which `python` (a version) runs.
    """

    recipe: Recipe
    lock: Lock
    manifest: Manifest
    wheel_licenses: Mapping[str, str]
    libraries: tuple[FrozenLibrary, ...] = ()
    python: str = ""


def render_sbom(gathered: Gathered) -> bytes:
    """The document's canonical bytes. Raises FormatError when it is larger than a set may carry."""
    maker = _Maker(gathered)
    output = make_outputter(maker.bom(), OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    table = json.loads(output)
    for component in table.get("components", []):
        # The library has no model cards yet; the schema does.
        model = maker.models.get(component["bom-ref"])
        if model is not None and model.family:
            embeds = "embedding" in model.capabilities
            task = "feature-extraction" if embeds else "text-generation"
            component["modelCard"] = {
                "modelParameters": {"task": task, "architectureFamily": model.family}
            }
    data = encode_canonical(table)
    if len(data) > MAX_SBOM_BYTES:
        raise FormatError(
            "bill of materials is too large",
            found=f"{len(data)} bytes",
            needed=f"at most {MAX_SBOM_BYTES} bytes",
        )
    return data


class _Maker:
    """Turns a gathered set into components, all with names of their own (bom-ref)."""

    def __init__(self, gathered: Gathered) -> None:
        self._recipe = gathered.recipe
        self._lock = gathered.lock
        self._manifest = gathered.manifest
        self._wheel_licenses = gathered.wheel_licenses
        self._libraries = gathered.libraries
        self._python = gathered.python
        self._entries = {entry.path: entry for entry in gathered.manifest.entries}
        self._carried_wheels = {
            entry.path.parts[-1]: entry.digest
            for entry in gathered.manifest.entries
            if entry.role == "wheel"
        }
        self.models: dict[str, CarriedModel] = {}

    def bom(self) -> Bom:
        """The whole document as the library's object."""
        manifest = self._manifest
        root = Component(
            type=ComponentType.PLATFORM,
            name=manifest.name,
            version=manifest.version,
            bom_ref=f"set:{manifest.name}",
            description=self._recipe.description or None,
        )
        tool = Component(type=ComponentType.APPLICATION, name="edgekit", version=__version__)
        lock = Digest.of(encode_lock(self._lock))
        bom = Bom(
            serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:edgekit:lock:{lock}"),
            metadata=BomMetaData(
                timestamp=datetime.fromtimestamp(manifest.created, UTC),
                component=root,
                tools=ToolRepository(components=[tool]),
            ),
        )
        wheels = {
            wheel.filename: self._wheel(wheel)
            for house in self._lock.wheelhouses
            for wheel in house.wheels
        }
        engines = [self._engine(pack) for pack in manifest.engines]
        images = {image.name: self._image(image) for image in self._lock.images}
        libraries = self._frozen_libraries()
        programs = [self._program()] if libraries else []
        tops = [*self._models(), *engines, *programs, *libraries, *wheels.values(),
                *images.values()]
        for component in tops:
            bom.components.add(component)
        for pack, engine in zip(manifest.engines, engines, strict=True):
            made_of = [images[pack.image]] if pack.image else [
                wheels[wheel.filename] for wheel in self._engine_wheels(pack)
            ]
            bom.register_dependency(engine, made_of)
        for program in programs:
            bom.register_dependency(program, libraries)
        bom.register_dependency(root, tops)
        return bom

    def _models(self) -> list[Component]:
        return [
            self._variant(recipe, carried, index)
            for recipe, carried in zip(self._recipe.models, self._manifest.models, strict=True)
            for index in range(len(recipe.variants))
        ] + [
            self._adapter(recipe, adapter)
            for recipe in self._recipe.models
            for adapter in recipe.adapters
        ]

    def _variant(self, recipe: ModelRecipe, carried: CarriedModel, index: int) -> Component:
        variant = carried.variants[index]
        source = recipe.variants[index]
        commit = self._lock.variant(recipe.name, index).commit
        ref = f"model:{recipe.name}:{index}"
        self.models[ref] = carried
        files = self._weights(recipe.name, index, variant)
        facts = {
            "format": variant.format,
            "quantization": variant.quantization,
            "parameters": str(carried.parameter_count),
            "context": str(carried.context),
            "bytes": str(variant.bytes),
            "commit": commit or "",
            "terms": recipe.terms and f"licenses/models/{recipe.name}",
        }
        return Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=recipe.name,
            version=variant.quantization,
            bom_ref=ref,
            licenses=_licenses(recipe.license),
            hashes=files[0].hashes if len(files) == 1 else (),
            components=files if len(files) > 1 else (),
            purl=_hub_url(source, commit),
            pedigree=_pedigree(recipe.base_model, ref),
            properties=_properties(facts),
        )

    def _adapter(self, model: ModelRecipe, adapter: AdapterRecipe) -> Component:
        """A LoRA adapter: it descends from the model that it changes."""
        locked = self._lock.adapter(model.name, adapter.name, adapter.format)
        folder = f"models/{model.name}/adapters/{adapter.name}"
        ref = f"adapter:{model.name}:{adapter.name}:{adapter.format}"
        prefix = f"{folder}/{adapter.format}"
        files = [self._file(RelPath(f"{prefix}/{f.path}"), f.sha256) for f in locked.files]
        facts = {
            "format": adapter.format,
            "adapter of": model.name,
            "commit": locked.commit or "",
            "terms": adapter.terms and f"licenses/{folder}",
        }
        return Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=adapter.name,
            version=adapter.format,
            bom_ref=ref,
            licenses=_licenses(adapter.license),
            hashes=files[0].hashes if len(files) == 1 else (),
            components=files if len(files) > 1 else (),
            purl=_hub_url(adapter, locked.commit),
            pedigree=_pedigree(adapter.base_model or model.name, ref),
            properties=_properties(facts),
        )

    def _weights(self, model: str, index: int, variant: CarriedVariant) -> list[Component]:
        """One component per file, with the SHA-256 of the lock and the SHA-384 of the manifest."""
        locked = {file.path: file.sha256 for file in self._lock.variant(model, index).files}
        return [self._file(path, _locked_digest(locked, path)) for path in variant.files]

    def _file(self, path: RelPath, sha256: Digest) -> Component:
        """A file of weights, with the lock's digest and the manifest's."""
        return Component(
            type=ComponentType.FILE,
            name=str(path),
            bom_ref=f"file:{path}",
            hashes=_hashes(sha256, self._entries[path].digest),
        )

    def _engine(self, pack: EnginePack) -> Component:
        program = self._entries[pack.program]
        # the engine's own wheel among those it needs, or the only one
        wheels = self._engine_wheels(pack)
        own = [wheel for wheel in wheels if wheel.name.startswith(pack.kind)] or wheels
        names = [self._wheel_licenses.get(wheel.filename, "") for wheel in own[:1]]
        return Component(
            type=ComponentType.APPLICATION,
            name=pack.kind,
            version=pack.version,
            bom_ref=f"engine:{pack.kind}:{pack.provider}",
            licenses=_licenses("".join(names)),
            hashes=_hashes(program.digest),
            properties=_properties({"provider": pack.provider, "program": str(pack.program)}),
        )

    def _engine_wheels(self, pack: EnginePack) -> tuple[LockedWheel, ...]:
        """What the lock names for an engine; nothing for one that is an image."""
        if pack.image:
            return ()
        return self._lock.wheelhouse(f"engine:{pack.kind}:{pack.provider}").wheels

    def _program(self) -> Component:
        """edgekit itself, as hosts run it."""
        entry = self._entries.get(HOST_PROGRAM)
        return Component(
            type=ComponentType.APPLICATION,
            name="edgekit",
            version=__version__,
            bom_ref="program:edgekit",
            licenses=_licenses("Apache-2.0"),
            hashes=_hashes(entry.digest) if entry else (),
        )

    def _frozen_libraries(self) -> list[Component]:
        """What is inside the host program: Python distributions, and Python."""
        found = [
            Component(
                type=ComponentType.LIBRARY,
                name=library.name,
                version=library.version,
                bom_ref=f"library:{library.name}",
                licenses=_licenses(library.license.name),
                purl=PackageURL("pypi", None, library.name, library.version),
            )
            for library in self._libraries
        ]
        if self._python:
            python = Component(
                type=ComponentType.PLATFORM,
                name="cpython",
                version=self._python,
                bom_ref="library:cpython",
                licenses=_licenses("PSF-2.0"),
                purl=PackageURL("generic", None, "python", self._python),
            )
            found.append(python)
        return found

    def _wheel(self, wheel: LockedWheel) -> Component:
        carried = self._carried_wheels.get(wheel.filename)
        return Component(
            type=ComponentType.LIBRARY,
            name=wheel.name,
            version=wheel.version,
            bom_ref=f"wheel:{wheel.filename}",
            licenses=_licenses(self._wheel_licenses.get(wheel.filename, "")),
            hashes=_hashes(wheel.sha256, *([carried] if carried else [])),
            purl=PackageURL("pypi", None, wheel.name, wheel.version, {"file_name": wheel.filename}),
        )

    def _image(self, image: LockedImage) -> Component:
        repository, tag = _split_reference(image.reference)
        digest = str(image.manifest.digest)
        return Component(
            type=ComponentType.CONTAINER,
            name=repository,
            version=tag or digest,
            bom_ref=f"image:{image.name}",
            hashes=_hashes(image.manifest.digest),
            purl=PackageURL(
                "oci",
                None,
                repository.rpartition("/")[2].lower(),
                digest,
                {"repository_url": _with_registry(repository).lower(), "tag": tag},
            ),
            properties=_properties({"reference": image.reference}),
        )


def _locked_digest(locked: Mapping[RelPath, Digest], path: RelPath) -> Digest:
    """The lock's digest of a carried file, `models/NAME/VARIANT/` and its path in the source."""
    return locked[RelPath("/".join(path.parts[3:]))]


def _hashes(*digests: Digest) -> list[HashType]:
    return [HashType(alg=_ALGORITHMS[d.algorithm], content=d.value) for d in digests]


def _licenses(name: str) -> list[License]:
    return [LicenseFactory().make_from_string(name)] if name else []


def _properties(facts: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"edgekit:{key}", value=value) for key, value in facts.items() if value]


def _hub_url(variant: Variant | AdapterRecipe, commit: str | None) -> PackageURL | None:
    if not isinstance(variant.source, HubSource) or commit is None:
        return None
    owner, _, name = variant.source.repository.partition("/")
    return PackageURL("huggingface", owner, name, commit)


def _pedigree(base_model: str, ref: str) -> Pedigree | None:
    if not base_model:
        return None
    base = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL, name=base_model, bom_ref=f"{ref}:base"
    )
    return Pedigree(ancestors=[base])


def _split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of an image reference; a digest in it is left out."""
    plain = reference.partition("@")[0]
    head, colon, tail = plain.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (plain, "")


def _with_registry(repository: str) -> str:
    first = repository.partition("/")[0]
    if "/" in repository and ("." in first or ":" in first or first == "localhost"):
        return repository
    return f"{_DEFAULT_REGISTRY}/{repository}"
