"""What a set was made from, and that it was checked: SLSA provenance 1 and verification summary 1.

Both are statements about a set's own files by SHA-384. This module makes them and reads them back;
`core/attestation.py` wraps and verifies them. Every value comes from the recipe, the lock and the
set, so the same lock and the same `created` give the same statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgekit.core import set_files
from edgekit.core.attestation import Statement, encode_statement
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.lock import Lock, LockedVariant, LockedWheel, encode_lock
from edgekit.core.recipe import HubSource, Recipe
from edgekit.core.release import VolumeTable
from edgekit.errors import FormatError

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
BUILDER = "edgekit"
BUILD_TYPE = "urn:edgekit:build:bundle:1"
LEVELS = ("SLSA_BUILD_LEVEL_1", "EDGEKIT_SET_V6")
"""Level 1: provenance exists. The packager's machine is nobody's hardened build service, so no
more is claimed. `EDGEKIT_SET_V6`: steps V1 to V6 of bundle-v1 passed."""
MAX_INPUTS = 100_000


@dataclass(frozen=True, slots=True)
class Input:
    """Something a set was made from: its name, SHA-256, and a package URL where it has one."""

    name: str
    digest: Digest
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """How a set was made. `recipe` and `lock` are SHA-384 of the files; `edgekit` is its version.

    `created` is in Unix seconds; `locked` says that no name was resolved for this build.
    """

    name: str
    version: str
    created: int
    recipe: Digest
    lock: Digest
    locked: bool
    edgekit: str
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a verified provenance statement says."""

    builder: str
    edgekit: str
    recipe: str
    lock: str
    inputs: int
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a verified verification summary says."""

    verifier: str
    result: str
    levels: tuple[str, ...]
    policy: str
    signers: tuple[str, ...]


def describe_build(
    recipe: Recipe,
    lock: Lock,
    *,
    created: int,
    locked: bool,
    edgekit: str,
    terms: tuple[Input, ...] = (),
) -> Build:
    """The build of a recipe's lock; `terms` are licence files that no lock names."""
    return Build(
        name=recipe.name,
        version=recipe.version,
        created=created,
        recipe=lock.recipe,
        lock=Digest.of(encode_lock(lock)),
        locked=locked,
        edgekit=edgekit,
        inputs=(*locked_inputs(recipe, lock), *terms),
    )


def locked_inputs(recipe: Recipe, lock: Lock) -> tuple[Input, ...]:
    """Everything a lock names by content, in the lock's order."""
    hubs = {
        (model.name, index): variant.source.repository
        for model in recipe.models
        for index, variant in enumerate(model.variants)
        if isinstance(variant.source, HubSource)
    }
    inputs = [
        Input(f"models/{v.model}/{v.index}/{file.path}", file.sha256, hub_url(hubs, v))
        for v in lock.variants
        for file in v.files
    ]
    inputs += [
        Input(f"models/{a.model}/adapters/{a.name}/{a.format}/{file.path}", file.sha256)
        for a in lock.adapters
        for file in a.files
    ]
    inputs += [
        Input(f"{house.owner}/{wheel.filename}", wheel.sha256, wheel_url(wheel))
        for house in lock.wheelhouses
        for wheel in house.wheels
    ]
    inputs += [
        Input(f"images/{image.name}/{blob.digest.value[:12]}", blob.digest)
        for image in lock.images
        for blob in (image.manifest, *image.blobs)
    ]
    return tuple(inputs)


def hub_url(hubs: Mapping[tuple[str, int], str], variant: LockedVariant) -> str:
    """Package URL of a variant from a hub at its commit; empty for a folder."""
    repository = hubs.get((variant.model, variant.index))
    if repository is None or variant.commit is None:
        return ""
    return f"pkg:huggingface/{repository}@{variant.commit}"


def wheel_url(wheel: LockedWheel) -> str:
    """Package URL of a wheel."""
    return f"pkg:pypi/{wheel.name}@{wheel.version.replace('+', '%2B').replace('!', '%21')}"


def set_subjects(documents: Mapping[str, bytes], table: VolumeTable) -> dict[str, Digest]:
    """What both statements are about: manifest, volume table and every volume, by SHA-384."""
    subjects = {
        name: Digest.of(documents[name]) for name in (set_files.MANIFEST, set_files.VOLUMES)
    }
    return subjects | {volume.name: volume.digest for volume in table.volumes}


def encode_provenance(build: Build, subjects: Mapping[str, Digest]) -> bytes:
    """The provenance statement of a build (SLSA provenance 1)."""
    return encode_statement(
        subjects,
        PROVENANCE_TYPE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "name": build.name,
                    "version": build.version,
                    "recipe": {build.recipe.algorithm: build.recipe.value},
                    "lock": {build.lock.algorithm: build.lock.value},
                    "locked": build.locked,
                },
                "resolvedDependencies": [_descriptor(item) for item in build.inputs],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"edgekit": build.edgekit}},
                "metadata": {"startedOn": timestamp(build.created)},
            },
        },
    )


def _descriptor(item: Input) -> dict[str, Any]:
    uri = {"uri": item.uri} if item.uri else {}
    return {"name": item.name, "digest": {item.digest.algorithm: item.digest.value}, **uri}


def encode_summary(
    build: Build,
    subjects: Mapping[str, Digest],
    *,
    policy: str,
    root: Digest,
    provenance: bytes,
) -> bytes:
    """The verification summary of a set that has just passed (SLSA VSA 1).

    `policy` and `root` say by whose signatures: the policy's name and the root that holds it.
    `provenance` is the signed envelope that was at hand.
    """
    return encode_statement(
        subjects,
        SUMMARY_TYPE,
        {
            "verifier": {"id": BUILDER, "version": {"edgekit": build.edgekit}},
            "timeVerified": timestamp(build.created),
            "resourceUri": f"urn:edgekit:set:{build.name}-{build.version}",
            "policy": {
                "uri": f"urn:edgekit:policy:{policy}",
                "digest": {root.algorithm: root.value},
            },
            "inputAttestations": [
                {"uri": set_files.PROVENANCE, "digest": {"sha384": Digest.of(provenance).value}}
            ],
            "verificationResult": "PASSED",
            "verifiedLevels": list(LEVELS),
            "slsaVersion": "1.0",
        },
    )


def parse_provenance(statement: Statement) -> Provenance:
    """Read a verified provenance statement. Raises FormatError for another kind of statement."""
    _check_type(statement, PROVENANCE_TYPE, set_files.PROVENANCE)
    fields = Fields(dict(statement.predicate), set_files.PROVENANCE)
    definition, details = fields.table("buildDefinition"), fields.table("runDetails")
    definition.text("buildType", choices=(BUILD_TYPE,))
    parameters = definition.table("externalParameters")
    builder = details.table("builder")
    inputs = definition.items("resolvedDependencies", max_items=MAX_INPUTS)
    return Provenance(
        builder=builder.text("id"),
        edgekit=builder.table("version").text("edgekit", max_length=40),
        recipe=str(Digest("sha384", parameters.table("recipe").text("sha384"))),
        lock=str(Digest("sha384", parameters.table("lock").text("sha384"))),
        inputs=len(inputs),
        signers=statement.signers,
    )


def parse_summary(statement: Statement) -> Summary:
    """Read a verified summary. Raises FormatError for another kind of statement."""
    _check_type(statement, SUMMARY_TYPE, set_files.SUMMARY)
    fields = Fields(dict(statement.predicate), set_files.SUMMARY)
    return Summary(
        verifier=fields.table("verifier").text("id"),
        result=fields.text("verificationResult", choices=("PASSED", "FAILED")),
        levels=fields.texts("verifiedLevels", max_items=32, max_length=100),
        policy=fields.table("policy").text("uri"),
        signers=statement.signers,
    )


def _check_type(statement: Statement, wanted: str, what: str) -> None:
    if statement.predicate_type != wanted:
        raise FormatError(
            f"{what} is another kind of attestation", found=statement.predicate_type, needed=wanted
        )


def check_subjects(statement: Statement, subjects: Mapping[str, Digest], what: str) -> None:
    """Refuse a statement that is about other bytes than these. Raises FormatError."""
    if statement.subjects != dict(subjects):
        wrong = sorted(
            name
            for name in {*statement.subjects, *subjects}
            if statement.subjects.get(name) != subjects.get(name)
        )
        raise FormatError(f"{what} is about another set", found=", ".join(wrong[:5]))


def timestamp(seconds: int) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
