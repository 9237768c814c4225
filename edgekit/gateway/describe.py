"""What an endpoint accepts, found out by letting its own parser read examples.

A `Describer` is a `Body` that writes down what it is asked for. So the served description and the
conformance table cannot differ from what is enforced: they are what the parsers asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Self

from edgekit.core.appliance import Appliance
from edgekit.core.infill import InfillTokens
from edgekit.gateway.body import MAX_SCHEMA_BYTES, MAX_STOP_CHARS, MAX_STOPS, Body
from edgekit.gateway.examples import EXAMPLES
from edgekit.gateway.job import MAX_NAME_CHARS
from edgekit.gateway.surfaces.endpoints import ENDPOINTS

Schema = dict[str, Any]
ABLE = ("completion", "tools", "thinking", "insert", "embedding", "rerank", "vision")
INFILL = InfillTokens(1, 2, 3)


class Effect(Enum):
    """What becomes of a field."""

    READ = "read"
    IGNORED = "ignored"
    FIXED = "fixed"
    """One value is accepted, which changes nothing."""


@dataclass(slots=True)
class Field:
    """A field, and the fields below it; `listed` says that they are those of a list's items.

    `visits` counts the tables that were read here, `demands` those that had to have the field.
    """

    schema: Schema = field(default_factory=dict)
    effect: Effect = Effect.READ
    below: dict[str, Field] = field(default_factory=dict)
    listed: Schema | None = None
    visits: int = 0
    demands: int = 0


class Describer(Body):
    """Reads like a `Body` and writes down what it was asked for."""

    def __init__(self, table: object, path: str = "", found: Field | None = None) -> None:
        super().__init__(table, path)
        self.found = found or Field()
        self.found.visits += 1

    def _note(
        self, key: str, schema: Schema, *, demanded: bool = False, effect: Effect = Effect.READ
    ) -> Field:
        noted = self.found.below.setdefault(key, Field())
        noted.schema = noted.schema or schema
        noted.effect = effect
        noted.demands += demanded
        return noted

    def raw(self, key: str, schema: Mapping[str, Any], *, required: bool = False) -> Any:
        self._note(key, dict(schema), demanded=required)
        return super().raw(key, schema)

    def text(self, key: str, *, max_chars: int, default: str | None = None) -> str:
        schema = {"type": "string", "maxLength": max_chars}
        self._note(key, schema, demanded=default is None)
        return super().text(key, max_chars=max_chars, default=default)

    def choice(self, key: str, allowed: Collection[str], *, default: str | None = None) -> str:
        self._note(key, {"enum": list(allowed)}, demanded=default is None)
        return super().choice(key, allowed, default=default)

    def switch(self, key: str) -> bool | None:
        self._note(key, {"type": "boolean"})
        return super().switch(key)

    def integer(self, key: str, low: int, high: int) -> int | None:
        self._note(key, {"type": "integer", "minimum": low, "maximum": high})
        return super().integer(key, low, high)

    def count(self, key: str, low: int, high: int) -> int:
        self._note(key, {}, demanded=True)
        return super().count(key, low, high)

    def number(self, key: str, low: float, high: float) -> float | None:
        self._note(key, {"type": "number", "minimum": low, "maximum": high})
        return super().number(key, low, high)

    def stops(self, key: str) -> list[str] | None:
        one = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
        many = {"type": "array", "items": one, "maxItems": MAX_STOPS}
        self._note(key, {"anyOf": [one, many]})
        return super().stops(key)

    def tables(self, key: str, *, max_items: int, required: bool = False) -> list[Self]:
        self._note(key, {}, demanded=required).listed = {
            **({"minItems": 1} if required else {}),
            "maxItems": max_items,
        }
        return super().tables(key, max_items=max_items, required=required)

    def parts(self, key: str, values: list[Any]) -> list[Self]:
        found = self.found.below[key]
        found.listed = found.listed or {}
        path = self.name(key)
        return [type(self)(value, f"{path}[{i}]", found) for i, value in enumerate(values)]

    def capped(
        self,
        key: str,
        kind: type,
        schema: Mapping[str, Any] = MappingProxyType({}),
        *,
        max_bytes: int = MAX_SCHEMA_BYTES,
    ) -> Any:
        name = "array" if kind is list else "object"
        self._note(key, {"type": name, "description": f"at most {max_bytes} bytes", **schema})
        return super().capped(key, kind, schema, max_bytes=max_bytes)

    def table(self, key: str) -> Self | None:
        found = self._note(key, {})
        value = self._left.pop(key, None)
        return None if value is None else type(self)(value, self.name(key), found)

    def whole_table(self, key: str) -> Self:
        self._note(key, {}, demanded=True)
        return super().whole_table(key)

    def only(self, key: str, *allowed: object, why: str) -> None:
        self._note(key, {"enum": list(allowed)}, effect=Effect.FIXED)
        super().only(key, *allowed, why=why)

    def ignore(self, names: frozenset[str]) -> None:
        for name in names - self.found.below.keys():
            self._note(name, {"description": "accepted without effect"}, effect=Effect.IGNORED)
        super().ignore(names)


@dataclass(frozen=True, slots=True)
class Reading:
    """One example as an endpoint's parser read it: the example, and what the engine is sent."""

    example: Mapping[str, Any]
    engine: Mapping[str, Any]


def describe(path: str, appliance: Appliance) -> tuple[Field, list[Reading]]:
    """What the endpoint at this path accepts, and how it read each of its examples.

    Ranges that depend on the model are those of the appliance's largest context.
    """
    context = max(model.context for model in appliance.models)
    first = replace(appliance.models[0], name="model", context=context)
    able = replace(first, capabilities=ABLE, infill=INFILL)
    known = replace(appliance, models=(able,))
    found, readings = Field(), []
    for example in EXAMPLES[path]:
        job = ENDPOINTS[path].parse(Describer({"model": "model", **example}, "", found), known)
        readings.append(Reading(example, getattr(job, "body", {})))
    return found, readings


def body_schema(found: Field, models: list[str]) -> Schema:
    """The JSON schema of a body; `models` are the names that are served."""
    schema = _table_schema(found)
    schema["properties"]["model"] = {
        "type": "string",
        "maxLength": MAX_NAME_CHARS,
        "enum": [name for model in models for name in _names(model)],
    }
    return schema


def fields_of(found: Field, before: str = "") -> Iterator[tuple[str, Field]]:
    """Every field by its dotted name, parents first; items of a list as `name[]`."""
    for key, noted in sorted(found.below.items()):
        name = before + key
        yield name, noted
        yield from fields_of(noted, f"{name}[]." if noted.listed is not None else f"{name}.")


def _names(model: str) -> tuple[str, ...]:
    return (model,) if ":" in model else (model, f"{model}:latest")


def _table_schema(found: Field) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {
            key: _field_schema(noted, demanded=noted.demands >= found.visits)
            for key, noted in sorted(found.below.items())
        },
        "additionalProperties": False,
    }
    required = [key for key, noted in found.below.items() if noted.demands >= found.visits]
    return {**schema, "required": sorted(required)} if required else schema


def _field_schema(found: Field, *, demanded: bool) -> Schema:
    forms = [found.schema] if found.schema else []
    if found.below:
        table = _table_schema(found)
        forms.append(
            table if found.listed is None else {"type": "array", "items": table, **found.listed}
        )
    if found.effect is Effect.IGNORED:
        return found.schema
    if not demanded:
        forms.append({"type": "null"})
    return forms[0] if len(forms) == 1 else {"anyOf": forms}
