"""The settings an installed generation runs on: written by `install`, read by its daemons.

`appliance.json` (schema `edgekit.appliance/1`) lies in the generation's folder. It is derived from
verified content and the plan; the daemons trust it as they trust their own program files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgekit.core.carried_model import PLACEMENTS
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.infill import InfillTokens
from edgekit.core.modelfile import Modelfile
from edgekit.core.names import NAME_PATTERN
from edgekit.core.site_config import SiteConfig
from edgekit.core.strict_json import parse_strict

SCHEMA = "edgekit.appliance/1"
TASKS = ("chat", "embedding", "rerank")
MAX_BYTES = 4 << 20
HOST_MEMORY = "host"
"""What a claim on the host's own memory is called."""


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter that a model's engine has loaded: of the digest and size, in bytes, of its files.
    """

    name: str
    digest: str
    size: int
    license: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the API shows it: size in bytes, context in tokens per request, Unix time.

    `capabilities` are Ollama's words, as the manifest has them; `infill` goes with `insert`.
    """

    name: str
    engine: str
    digest: str
    size: int
    format: str
    family: str
    parameter_size: str
    quantization: str
    context: int
    license: str
    created: int
    capabilities: tuple[str, ...] = ("completion",)
    infill: InfillTokens | None = None
    adapters: tuple[ServedAdapter, ...] = ()
    """All that its engine has, in the order in which the engine numbers them."""
    defaults: Modelfile | None = None
    """Of a model that a Modelfile made, what it adds. It stands in no file of settings."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file on this host and what it must hash to before every engine start.

    `verity` is its fs-verity measurement, taken before it was hashed in full; empty without one.
    """

    path: str
    digest: str
    size: int
    verity: str = ""


@dataclass(frozen=True, slots=True)
class CanaryCheck:
    """A prompt and a text that a greedy answer must contain.

    Of an embedding model: two texts whose vectors must be nearer to each other than the prompt's is
    to the answer of any other check. Of one that ranks: a query, and the document that must come
    before the answers of all other checks. `adapter` is the number of the one to ask with.
    """

    model: str
    prompt: str
    answer: str
    adapter: int | None = None


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the supervisor starts one engine. `start_timeout_s` bounds load plus first answer.

    `task` is what it makes: text (`chat`), vectors (`embedding`) or scores (`rerank`). `planned`
    are bytes by memory term that the engine itself reports after its start (tokens for the term of
    that name), `placement` is where its weights must lie.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    socket: str
    slots: int
    context: int
    start_timeout_s: int
    weights: tuple[WeightsFile, ...]
    canaries: tuple[CanaryCheck, ...]
    task: str = "chat"
    planned: tuple[tuple[str, int], ...] = ()
    placement: str = "cpu"
    claims: tuple[tuple[str, int], ...] = ()
    """Planned bytes by where they are taken from: `host`, or an accelerator's identity."""
    levels: tuple[str, ...] = ()
    """Libraries of llama.cpp's arithmetic that should run on this processor, best first."""
    helper: str = ""
    """The program beside the engine that tries one of them."""
    owner: int = 0
    """Numeric user of an engine in a container, which is given the folder of its socket; 0: none.
    """
    lease: str = ""
    """Of an engine that is loaded on demand: the socket on which it is asked for."""
    min_tokens_per_second: int = 0
    """What its fastest known answer must reach here, says the set; 0: any rate."""

    @property
    def memory(self) -> int:
        """Planned bytes, wherever they lie."""
        return sum(size for _, size in self.claims)

    @property
    def device_memory(self) -> int:
        """Planned bytes on accelerators."""
        return sum(size for place, size in self.claims if place != HOST_MEMORY)


@dataclass(frozen=True, slots=True)
class Appliance:
    """Everything gateway, audit writer and supervisor need to know. `listen` is `address:port`.

    `shared_room` are the bytes of the host's memory that engines loaded on demand share.
    """

    name: str
    version: str
    generation: str
    listen: str
    audit_socket: str
    models: tuple[ServedModel, ...]
    engines: tuple[EngineSettings, ...]
    shared_room: int = 0

    def engine(self, name: str) -> EngineSettings:
        """Settings of one engine. Raises KeyError: names come from this same file."""
        return next(engine for engine in self.engines if engine.name == name)


def at_site(appliance: Appliance, site: SiteConfig) -> Appliance:
    """The appliance as this site runs it: what the site decided goes over what the plan said."""
    engines = tuple(
        replace(engine, start_timeout_s=site.engine.start_timeout_s or engine.start_timeout_s)
        for engine in appliance.engines
    )
    return replace(appliance, listen=site.server.listen or appliance.listen, engines=engines)


def encode_appliance(appliance: Appliance) -> bytes:
    """Readable deterministic JSON."""
    table: dict[str, Any] = {"schema": SCHEMA, **asdict(appliance)}
    for model in table["models"]:
        model["infill"] = model["infill"] or {}
    for model in table["models"]:
        del model["defaults"]
    for engine in table["engines"]:
        engine["environment"] = dict(engine["environment"])
        engine["planned"] = dict(engine["planned"])
        engine["claims"] = dict(engine["claims"])
        for canary in engine["canaries"]:
            if canary["adapter"] is None:
                del canary["adapter"]
    return json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"


def parse_appliance(data: bytes) -> Appliance:
    """Bytes of appliance.json to settings. Raises FormatError."""
    fields = Fields(parse_strict(data, max_bytes=MAX_BYTES, what="appliance.json"))
    fields.text("schema", choices=(SCHEMA,))
    appliance = Appliance(
        name=fields.text("name", pattern=NAME_PATTERN),
        version=fields.text("version"),
        generation=fields.text("generation"),
        listen=fields.text("listen"),
        audit_socket=fields.text("audit_socket", max_length=107),
        models=tuple(_served_model(f) for f in fields.items("models", max_items=64)),
        engines=tuple(_engine(f) for f in fields.items("engines", max_items=64)),
        shared_room=fields.integer("shared_room", low=0, high=1 << 50, default=0),
    )
    fields.finish()
    return appliance


def _served_model(fields: Fields) -> ServedModel:
    model = ServedModel(
        name=fields.text("name", pattern=NAME_PATTERN),
        engine=fields.text("engine"),
        digest=str(Digest.parse(fields.text("digest"))),
        size=fields.integer("size", low=0, high=1 << 50),
        format=fields.text("format"),
        family=fields.text("family"),
        parameter_size=fields.text("parameter_size"),
        quantization=fields.text("quantization"),
        context=fields.integer("context", low=1, high=1 << 24),
        license=fields.text("license"),
        created=fields.integer("created", low=0, high=1 << 40),
        capabilities=fields.texts("capabilities", max_items=16),
        infill=_infill(fields.table("infill", {})),
        adapters=tuple(_adapter(f) for f in fields.items("adapters", max_items=64, default=[])),
    )
    fields.finish()
    return model


def _adapter(fields: Fields) -> ServedAdapter:
    adapter = ServedAdapter(
        name=fields.text("name", pattern=NAME_PATTERN),
        digest=str(Digest.parse(fields.text("digest"))),
        size=fields.integer("size", low=0, high=1 << 50),
        license=fields.text("license"),
    )
    fields.finish()
    return adapter


def _infill(fields: Fields) -> InfillTokens | None:
    if not fields.keys():
        return None
    names = ("prefix", "suffix", "middle")
    tokens = InfillTokens(*(fields.integer(name, low=0, high=1 << 30) for name in names))
    fields.finish()
    return tokens


def _engine(fields: Fields) -> EngineSettings:
    environment = fields.mapping("environment")
    engine = EngineSettings(
        name=fields.text("name", pattern=NAME_PATTERN),
        kind=fields.text("kind"),
        argv=fields.texts("argv", max_items=200, max_length=4096),
        environment=tuple(sorted((str(k), str(v)) for k, v in environment.items())),
        socket=fields.text("socket", max_length=107),
        slots=fields.integer("slots", low=1, high=4096),
        context=fields.integer("context", low=1, high=1 << 26),
        start_timeout_s=fields.integer("start_timeout_s", low=1, high=86400),
        weights=tuple(_weights(f) for f in fields.items("weights", max_items=1000)),
        canaries=tuple(_canary(f) for f in fields.items("canaries", max_items=1024)),
        task=fields.text("task", choices=TASKS),
        planned=_sizes(fields.table("planned", {})),
        placement=fields.text("placement", choices=PLACEMENTS, default="cpu"),
        levels=fields.texts("levels", max_items=64, max_length=4096),
        helper=fields.text("helper", max_length=4096, default=""),
        owner=fields.integer("owner", low=0, high=(1 << 31) - 1, default=0),
        claims=_sizes(fields.table("claims", {})),
        lease=fields.text("lease", max_length=107, default=""),
        min_tokens_per_second=fields.integer(
            "min_tokens_per_second", low=0, high=100_000, default=0
        ),
    )
    fields.finish()
    return engine


def _sizes(fields: Fields) -> tuple[tuple[str, int], ...]:
    names = sorted(fields.keys())
    return tuple((name, fields.integer(name, low=0, high=1 << 50)) for name in names)


def _weights(fields: Fields) -> WeightsFile:
    weights = WeightsFile(
        path=fields.text("path", max_length=4096),
        digest=str(Digest.parse(fields.text("digest"))),
        size=fields.integer("size", low=0, high=1 << 50),
        verity=fields.text("verity", default=""),
    )
    fields.finish()
    return weights


def _number(fields: Fields, key: str) -> int | None:
    return fields.integer(key, low=0, high=63) if key in fields else None


def _canary(fields: Fields) -> CanaryCheck:
    canary = CanaryCheck(
        model=fields.text("model"),
        prompt=fields.text("prompt", max_length=1000),
        answer=fields.text("answer", max_length=1000),
        adapter=_number(fields, "adapter"),
    )
    fields.finish()
    return canary
