"""Recipes: the TOML that says what goes into a bundle. Schema in docs/reference/recipe.md.

`parse_recipe` is strict: unknown keys, wrong types and out-of-range values are RecipeErrors that
name the file, the dotted key and its line.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace

from edgekit.core.adapter import FORMATS as ADAPTER_FORMATS
from edgekit.core.adapter import MAX_ADAPTERS
from edgekit.core.carried_model import AUTO, LOADS, POOLINGS, parse_min_rates
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath
from edgekit.core.toml_lines import find_line
from edgekit.errors import EdgekitError, FormatError, RecipeError

MAX_RECIPE_BYTES = 1 << 20
VERSION_PATTERN = r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:-[a-z0-9.]{1,30})?"
ARCHITECTURES = ("x86_64", "aarch64")
VARIANT_FORMATS = ("gguf", "safetensors")
TASKS = ("chat", "embedding", "rerank")
ENGINE_PROVIDERS = {"llama.cpp": ("wheel", "source", "image"), "vllm": ("wheel",)}
RECIPE_ACCELERATORS = ("cpu", "cuda", "vulkan")


@dataclass(frozen=True, slots=True)
class Target:
    """The hosts this bundle is for: architecture, newest C library, Python of the wheels."""

    arch: str
    glibc: tuple[int, int]
    python: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Weights in a local folder, relative to the recipe's own folder unless absolute."""

    path: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """Weights in a Hugging Face repository at a revision (branch, tag or commit)."""

    repository: str
    revision: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantisation or format of a model's weights. `files` are paths below the source; `mmproj`
    is the one among them that is a vision projector."""

    format: str
    quantization: str
    source: FolderSource | HubSource
    files: tuple[RelPath, ...]
    mmproj: RelPath | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt whose greedy answer is known; `answer` must occur in the reply."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """A LoRA adapter for a model, for engines that read its format; `base_model` and `terms` as of
    a model."""

    name: str
    format: str
    license: str
    source: FolderSource | HubSource
    files: tuple[RelPath, ...]
    canaries: tuple[Canary, ...] = ()
    base_model: str = ""
    terms: str = ""


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """A model (AI weights) with its variants; `context` is what is wanted, in tokens per slot.

    `task` is `chat`, `embedding` or `rerank`; `pooling` says how an embedding model makes one
    vector of many, where its weights do not. `load` says when it is in memory (`release.LOADS`).
    `min_tokens_per_second` is what a host must reach, by placement.
    `base_model` names what it was made from; `terms` is the path of its licence or terms, a text
    file, relative to the recipe's own folder unless absolute. These three may be empty.
    """

    name: str
    context: int
    license: str
    variants: tuple[Variant, ...]
    canaries: tuple[Canary, ...]
    base_model: str = ""
    terms: str = ""
    task: str = "chat"
    pooling: str = ""
    load: str = AUTO
    adapters: tuple[AdapterRecipe, ...] = ()
    min_tokens_per_second: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """An engine to carry. `package` is the pinned requirement that the provider fetches.

    `accelerator` is what an engine from source or from an image can drive beside the processor.
    An engine from an image has no package: `image` names the `[[image]]`, `version` is for people,
    `cuda` the toolkit in it.
    """

    kind: str
    provider: str
    package: str
    accelerator: str = "cpu"
    image: str = ""
    version: str = ""
    cuda: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class WheelsRecipe:
    """A wheelhouse: exact requirements resolved for the target, wheels only."""

    name: str
    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """A container image by reference; the lock resolves it to digests for the target's arch."""

    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class DerivedRecipe:
    """A model that a Modelfile makes of another one of the recipe; the path as of `terms`."""

    name: str
    modelfile: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. (epoch, sequence) orders releases; version is for people."""

    name: str
    version: str
    epoch: int
    sequence: int
    description: str
    digest_algorithm: str
    target: Target
    users: int
    models: tuple[ModelRecipe, ...]
    engines: tuple[EngineRecipe, ...]
    wheels: tuple[WheelsRecipe, ...]
    images: tuple[ImageRecipe, ...]
    derived: tuple[DerivedRecipe, ...] = ()


def parse_recipe(data: bytes, *, file: str) -> Recipe:
    """TOML bytes to a Recipe. `file` is how messages call it. Raises RecipeError."""
    if len(data) > MAX_RECIPE_BYTES:
        raise RecipeError("recipe is too large", where=file, needed=f"{MAX_RECIPE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError("recipe is not valid TOML", where=file, found=str(error)) from error

    def fail(message: str, path: str) -> EdgekitError:
        line = find_line(text, path)
        return RecipeError(message, where=f"{file}, key {path}, line {line}")

    try:
        return _recipe(Fields(table, error=fail))
    except RecipeError:
        raise
    except FormatError as error:
        raise RecipeError(error.message, where=file, found=error.found) from error


def _recipe(fields: Fields) -> Recipe:
    fields.integer("format", low=1, high=1)
    recipe = Recipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        version=fields.text("version", pattern=VERSION_PATTERN),
        epoch=fields.integer("epoch", low=1, high=2**31 - 1, default=1),
        sequence=fields.integer("sequence", low=1, high=2**53),
        description=fields.text("description", max_length=500, default=""),
        digest_algorithm=fields.text("digest", choices=("sha384", "sha256"), default="sha384"),
        target=_target(fields.table("target")),
        users=fields.integer("users", low=1, high=10_000, default=1),
        models=tuple(_model(item) for item in fields.items("model", max_items=64, default=[])),
        engines=tuple(_engine(item) for item in fields.items("engine", max_items=16, default=[])),
        wheels=tuple(_wheels(item) for item in fields.items("wheels", max_items=16, default=[])),
        images=tuple(_image(item) for item in fields.items("image", max_items=64, default=[])),
        derived=tuple(_derived(f) for f in fields.items("derived", max_items=64, default=[])),
    )
    fields.finish()
    for kind in ("models", "wheels", "images"):
        names = [item.name for item in getattr(recipe, kind)]
        if len(set(names)) != len(names):
            raise fields.fail(kind.removesuffix("s"), "two entries have the same name")
    images = {image.name for image in recipe.images}
    for index, engine in enumerate(recipe.engines):
        if engine.image and engine.image not in images:
            raise fields.fail(f"engine.{index}.image", f"no [[image]] is called {engine.image}")
    names = [model.name for model in recipe.models] + [made.name for made in recipe.derived]
    if len(set(names)) != len(names):
        raise fields.fail("derived", "two models have the same name")
    if recipe.models and not recipe.engines:
        raise fields.fail("engine", "a recipe with models needs an engine")
    return recipe


def _derived(fields: Fields) -> DerivedRecipe:
    derived = DerivedRecipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        modelfile=fields.text("modelfile", max_length=1024),
    )
    fields.finish()
    return derived


def _target(fields: Fields) -> Target:
    target = Target(
        arch=fields.text("arch", choices=ARCHITECTURES),
        glibc=_pair(fields, "glibc", default="2.36"),
        python=_pair(fields, "python", default="3.11"),
    )
    fields.finish()
    return target


def _pair(fields: Fields, key: str, default: str) -> tuple[int, int]:
    text = fields.text(key, pattern=r"[0-9]{1,3}\.[0-9]{1,3}", default=default)
    major, minor = text.split(".")
    return int(major), int(minor)


def _model(fields: Fields) -> ModelRecipe:
    model = ModelRecipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        context=fields.integer("context", low=256, high=1 << 22, default=4096),
        license=fields.text("license", max_length=100),
        variants=tuple(_variant(item) for item in fields.items("variant", max_items=32)),
        canaries=tuple(_canary(item) for item in fields.items("canary", max_items=32, default=[])),
        base_model=fields.text("base_model", max_length=200, default=""),
        terms=fields.text("terms", max_length=1024, default=""),
        task=fields.text("task", choices=TASKS, default="chat"),
        pooling=fields.text("pooling", choices=("", *POOLINGS), default=""),
        load=fields.text("load", choices=LOADS, default=AUTO),
        adapters=tuple(
            _adapter(item) for item in fields.items("adapter", max_items=MAX_ADAPTERS, default=[])
        ),
        min_tokens_per_second=parse_min_rates(fields.table("min_tokens_per_second", {})),
    )
    fields.finish()
    if model.min_tokens_per_second and not (model.task == "chat" and model.canaries):
        raise fields.fail(
            "min_tokens_per_second",
            "only a model with the task chat and a [[model.canary]] has one",
        )
    if model.task != "chat" and any(variant.mmproj for variant in model.variants):
        raise fields.fail("variant", "only a model with the task chat sees images")
    if model.pooling and model.task != "embedding":
        raise fields.fail("pooling", "only a model with the task embedding pools")
    if model.adapters and model.task != "chat":
        raise fields.fail("adapter", "only a model with the task chat has adapters")
    names = [(adapter.name, adapter.format) for adapter in model.adapters]
    if len(set(names)) != len(names):
        raise fields.fail("adapter", "two adapters have the same name and format")
    if not model.variants:
        raise fields.fail("variant", "a model needs at least one variant")
    return model


def _variant(fields: Fields) -> Variant:
    variant = Variant(
        format=fields.text("format", choices=VARIANT_FORMATS),
        quantization=fields.text("quantization", pattern=r"[A-Za-z0-9_]{2,20}"),
        source=_source(fields.table("source")),
        files=_paths(fields, "files"),
    )
    projector = fields.text("mmproj", max_length=1024, default="")
    fields.finish()
    if not variant.files:
        raise fields.fail("files", "name at least one file; unlisted files are never carried")
    return _with_projector(fields, variant, projector) if projector else variant


def _with_projector(fields: Fields, variant: Variant, projector: str) -> Variant:
    if variant.format != "gguf":
        raise fields.fail("mmproj", "only a GGUF variant has one")
    if projector in map(str, variant.files):
        raise fields.fail("mmproj", "is among files, too")
    try:
        path = RelPath(projector)
    except FormatError as error:
        raise fields.fail("mmproj", f"{error.message} in {projector!r}") from error
    return replace(variant, files=(*variant.files, path), mmproj=path)


def _adapter(fields: Fields) -> AdapterRecipe:
    adapter = AdapterRecipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        format=fields.text("format", choices=ADAPTER_FORMATS, default="gguf"),
        license=fields.text("license", max_length=100),
        source=_source(fields.table("source")),
        files=_paths(fields, "files"),
        canaries=tuple(_canary(item) for item in fields.items("canary", max_items=32, default=[])),
        base_model=fields.text("base_model", max_length=200, default=""),
        terms=fields.text("terms", max_length=1024, default=""),
    )
    fields.finish()
    if not adapter.files:
        raise fields.fail("files", "name at least one file; unlisted files are never carried")
    return adapter


def _paths(fields: Fields, key: str) -> tuple[RelPath, ...]:
    paths = []
    for index, text in enumerate(fields.texts(key, max_items=1000, max_length=1024)):
        try:
            paths.append(RelPath(text))
        except FormatError as error:
            raise fields.fail(f"{key}.{index}", f"{error.message} in {text!r}") from error
    return tuple(paths)


def _source(fields: Fields) -> FolderSource | HubSource:
    source: FolderSource | HubSource
    if "folder" in fields:
        source = FolderSource(fields.text("folder", max_length=1024))
    else:
        source = HubSource(
            repository=fields.text("hub", pattern=r"[\w.-]{1,96}/[\w.-]{1,96}"),
            revision=fields.text("revision", pattern=r"[\w./-]{1,200}", default="main"),
        )
    fields.finish()
    return source


def _canary(fields: Fields) -> Canary:
    canary = Canary(
        prompt=fields.text("prompt", max_length=1000),
        answer=fields.text("answer", max_length=1000),
    )
    fields.finish()
    return canary


def _engine(fields: Fields) -> EngineRecipe:
    kind = fields.text("kind", choices=tuple(ENGINE_PROVIDERS))
    provider = fields.text("provider", choices=ENGINE_PROVIDERS[kind])
    if provider == "image":
        return _image_engine(fields, kind)
    engine = EngineRecipe(
        kind=kind,
        provider=provider,
        package=fields.text("package", pattern=REQUIREMENT_PATTERN),
        accelerator=fields.text("accelerator", choices=RECIPE_ACCELERATORS, default="cpu"),
    )
    fields.finish()
    if engine.accelerator != "cpu" and engine.provider != "source":
        raise fields.fail("accelerator", "a wheel drives what it was built for")
    return engine


def _image_engine(fields: Fields, kind: str) -> EngineRecipe:
    engine = EngineRecipe(
        kind=kind,
        provider="image",
        package="",
        accelerator=fields.text("accelerator", choices=RECIPE_ACCELERATORS, default="cpu"),
        image=fields.text("image", pattern=NAME_PATTERN),
        version=fields.text("version", pattern=r"[A-Za-z0-9.+!_-]{1,40}"),
        cuda=_pair(fields, "cuda", default="0.0"),
    )
    fields.finish()
    if (engine.accelerator == "cuda") != (engine.cuda > (0, 0)):
        raise fields.fail("cuda", "an image for CUDA, and no other, says which CUDA is in it")
    return engine


REQUIREMENT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}==[A-Za-z0-9.+!]{1,40}"
"""Exact pins only: what a lock resolves must not depend on the day it is made."""


def _wheels(fields: Fields) -> WheelsRecipe:
    wheels = WheelsRecipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        requirements=fields.texts("requirements", max_items=200, pattern=REQUIREMENT_PATTERN),
    )
    fields.finish()
    return wheels


def _image(fields: Fields) -> ImageRecipe:
    image = ImageRecipe(
        name=fields.text("name", pattern=NAME_PATTERN),
        reference=fields.text("reference", pattern=r"[a-zA-Z0-9][\w.:/@-]{2,300}"),
    )
    fields.finish()
    return image
