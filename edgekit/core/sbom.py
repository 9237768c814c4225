"""Reading a set's bill of materials (CycloneDX 1.6 JSON), as far as `inspect` shows it.

The document is verified before it comes here, and it is made by `edgekit/sources/sbom.py` on the
connected side. Keys that are not shown are left alone: CycloneDX has its own schema.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgekit.core import set_files
from edgekit.core.fields import Fields
from edgekit.core.strict_json import parse_canonical

MAX_COMPONENTS = 20_000
COMPONENT_TYPES = (
    "application",
    "container",
    "cryptographic-asset",
    "data",
    "device",
    "device-driver",
    "file",
    "firmware",
    "framework",
    "library",
    "machine-learning-model",
    "operating-system",
    "platform",
)


@dataclass(frozen=True, slots=True)
class Component:
    """One component: CycloneDX type, name, version (maybe empty), licences as SPDX or free text."""

    type: str
    name: str
    version: str
    licenses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sbom:
    """A bill of materials: its serial number and its top-level components."""

    serial_number: str
    components: tuple[Component, ...]

    def counts(self) -> dict[str, int]:
        """How many components of each type, sorted by type."""
        return dict(sorted(Counter(item.type for item in self.components).items()))

    def licenses(self) -> dict[str, tuple[str, ...]]:
        """Which components name which licence; "" for those that name none."""
        found: dict[str, list[str]] = {}
        for item in self.components:
            for name in item.licenses or ("",):
                found.setdefault(name, []).append(item.name)
        return {name: tuple(sorted(set(found[name]))) for name in sorted(found)}


def parse_sbom(data: bytes) -> Sbom:
    """Verified bytes to what is shown of them. Raises FormatError."""
    what = set_files.SBOM
    fields = Fields(parse_canonical(data, max_bytes=set_files.MAX_SBOM_BYTES, what=what), what)
    fields.text("bomFormat", choices=("CycloneDX",))
    fields.text("specVersion", choices=("1.6",))
    return Sbom(
        serial_number=fields.text("serialNumber", pattern=r"urn:uuid:[0-9a-f-]{36}"),
        components=tuple(
            _component(item)
            for item in fields.items("components", max_items=MAX_COMPONENTS, default=[])
        ),
    )


def _component(fields: Fields) -> Component:
    licenses = fields.items("licenses", max_items=100, default=[])
    return Component(
        type=fields.text("type", choices=COMPONENT_TYPES),
        name=fields.text("name", max_length=400),
        version=fields.text("version", max_length=400, default=""),
        licenses=tuple(_license(item) for item in licenses),
    )


def _license(choice: Fields) -> str:
    expression: Any = choice.text("expression", max_length=400, default=None)
    if expression is not None:
        return str(expression)
    license_ = choice.table("license")
    return license_.text("id", default="") or license_.text("name", max_length=400, default="")
