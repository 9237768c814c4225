"""Carrying out an install plan, step by step, with the way back from every step.

The invariants I1 to I10 of bundle-v1 section 11 are cited where they hold.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.core import trust
from edgekit.core.events import Finished, Listener, Started, Warned
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan, plan_table
from edgekit.core.names import RelPath
from edgekit.errors import EdgekitError, WeightsError
from edgekit.operations.activation import activate, check_health, deactivate, services_for
from edgekit.operations.host_records import (
    RECEIPT,
    audit_event,
    discard_api_keys,
    ensure_api_keys,
    is_committed,
    keep_config,
    pretty_json,
    previous_generation,
)
from edgekit.operations.sealing import seal_weights
from edgekit.operations.unfinished import (
    INSTALL,
    Unfinished,
    begin_marker,
    end_marker,
    new_attempt,
)
from edgekit.system import generations
from edgekit.system.blob_store import copy_blobs, discard_blobs, discard_staging
from edgekit.system.bundle_set import VerifiedSet
from edgekit.system.files import durable_write
from edgekit.system.images import has_podman, load_image
from edgekit.system.services import ForegroundServices
from edgekit.system.trust_store import TrustStore
from edgekit.system.weights import check_adapter, check_weights


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done: times in seconds by step, and the clear API key when one was made.

    `tokens_per_second` is each model's rate over its known questions, prompt included.

    `images` are the container images loaded, as `name@sha256:...`, the form to run them by.
    """

    generation: str
    previous: str
    already_installed: bool
    copied_bytes: int
    seconds: dict[str, float]
    images: tuple[str, ...]
    api_key: str
    listen: str
    tokens_per_second: dict[str, float]
    attempt: str = ""
    """What the audit log calls this installation."""

    def table(self) -> dict[str, Any]:
        """The receipt as plain JSON values, without the key's secret."""
        table = {"schema": "edgekit.receipt/1", **asdict(self)}
        del table["api_key"]
        table["seconds"] = {name: round(value, 3) for name, value in self.seconds.items()}
        rates = self.tokens_per_second.items()
        table["tokens_per_second"] = {name: round(value, 1) for name, value in rates}
        return table


class Installation:
    """One run of a plan's steps.

    `previous` is what served, fully committed, before this plan's generation was first tried; it
    is what a failure goes back to. `break_glass` is why a set below the floor is installed.
    """

    def __init__(
        self,
        verified: VerifiedSet,
        plan: InstallPlan,
        previous: str | None,
        listener: Listener,
        *,
        break_glass: str | None = None,
    ) -> None:
        self._verified = verified
        self._break_glass = break_glass
        self._plan = plan
        self._previous = previous
        self._layout = plan.layout
        self._listener = listener
        self._seconds: dict[str, float] = {}
        self._touched_services = False
        # A committed generation that serves and is installed again is being repaired: it stays
        # whatever comes. One that does not serve may fail to start, but keeps its files.
        self._was_committed = is_committed(self._layout, plan.generation)
        self._repairing = self._was_committed and plan.previous == plan.generation
        if self._repairing:
            self._previous = previous_generation(self._layout, plan.generation)
        # Before the first receipt nobody was shown an API key.
        self._first_ever = not any(
            is_committed(self._layout, name) for name in generations.installed(self._layout)
        )
        self._brought = tuple(d for d in plan.missing if not self._layout.blob(d).exists())
        self._services = services_for(self._layout)
        self._attempt = new_attempt()

    def run(self) -> Receipt:
        """Carry out the plan; on any failure before the receipt undo it and re-raise.

        With the receipt the release is committed and proves its floor (I6). When root or floor then
        cannot be written, the error is raised, nothing is undone, and the next run writes them.
        """
        begin_marker(
            self._layout,
            Unfinished(INSTALL, self._attempt, self._plan.generation, self._previous or ""),
        )
        try:
            self._audit("install_begin")  # I7
            receipt = self._forward()
        except BaseException as error:
            self._undo(error)
            raise
        advance_trust(self._layout, self._verified)
        end_marker(self._layout)
        if isinstance(self._services, ForegroundServices):
            self._services.stop()
        return receipt

    def _forward(self) -> Receipt:
        with self._timed("copy"):
            self._copy()
        with self._timed("check weights"):
            self._check_weights()
        with self._timed("build"):
            new_key = self._build()
        images = self._load_images()
        with self._timed("start"):
            self._switch_and_start()
        with self._timed("health"):
            rates = self._check_health()
        keep_config(self._layout)
        self._audit("install_commit")  # I7
        receipt = Receipt(
            generation=self._plan.generation,
            previous=self._previous or "",
            already_installed=False,
            copied_bytes=self._plan.copy_bytes,
            seconds=self._seconds,
            images=images,
            api_key=new_key,
            attempt=self._attempt,
            listen=self._plan.appliance.listen,
            tokens_per_second=rates,
        )
        folder = self._layout.generation(self._plan.generation)
        durable_write(folder / RECEIPT, pretty_json(receipt.table()))
        return receipt

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self._listener(Started(name))
        started = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - started
        self._listener(Finished(name, f"{self._seconds[name]:.1f} s"))

    def _copy(self) -> None:
        copy_blobs(self._verified, self._plan.missing, self._layout, self._listener)  # I2, I3

    def _check_weights(self) -> None:
        """The chosen weights again, as `bundle` checked them: a signature says who, not what."""
        for chosen in self._plan.selections:
            variant = chosen.variant
            weights = self._places(variant.files)
            header = check_weights(variant.format, weights, variant.mmproj)
            if header.shape != dict(variant.shape):
                raise WeightsError(
                    "the manifest describes other weights than it carries",
                    where=f"model {chosen.model.name}",
                    found=str(sorted(header.shape.items()))[:200],
                    needed=str(sorted(variant.shape))[:200],
                )

            for adapter in chosen.model.fitting(variant):
                shape = check_adapter(adapter.format, self._places(adapter.files), weights)
                if shape != adapter.shape:
                    raise WeightsError(
                        "the manifest describes another adapter than it carries",
                        where=f"adapter {adapter.name} of model {chosen.model.name}",
                        found=str(shape), needed=str(adapter.shape),
                    )

    def _places(self, files: tuple[RelPath, ...]) -> dict[RelPath, Path]:
        """Where the bytes of some entries lie."""
        manifest = self._verified.manifest
        return {path: self._layout.blob(manifest.entry(path).digest) for path in files}

    def _build(self) -> str:
        """The generation's folder and, the first time, the host's API keys."""
        documents = {
            "plan.json": pretty_json(plan_table(self._plan)),
            "release.json": self._verified.metadata["release.json"],
            "manifest.json": self._verified.metadata["manifest.json"],
            "root.json": self._verified.root.data,
        }
        sealed = replace(self._plan, appliance=seal_weights(self._plan.appliance))
        generations.build_generation(sealed, documents)  # I4
        if lost := generations.mislabelled(self._layout, self._plan.generation):
            text = f"{len(lost)} programs and units cannot get their SELinux labels here"
            self._listener(Warned(text))
        return ensure_api_keys(self._layout, renew=self._first_ever)

    def _load_images(self) -> tuple[str, ...]:
        loaded = []
        for image in self._plan.images:
            if not has_podman() or self._layout.is_private:
                self._listener(
                    Warned(
                        f"container image {image.name} is carried but not loaded: "
                        "no podman for this root"
                    )
                )
                continue
            with self._timed(f"image {image.name}"):
                load_image(image, self._verified.manifest, self._layout)
            loaded.append(image.pinned)
        return tuple(loaded)

    def _switch_and_start(self) -> None:
        self._touched_services = True
        activate(self._layout, self._plan.generation, self._services)

    def _check_health(self) -> dict[str, float]:
        return check_health(self._layout, self._plan.generation)

    def _undo(self, error: BaseException) -> None:
        """Back to what served before. The first failure is what gets reported, whatever happens."""
        self._listener(Warned("undoing the installation"))
        try:
            if not self._repairing:
                self._undo_services()
                self._undo_files()
            if isinstance(error, EdgekitError):  # an interrupted copy is kept for the next run
                self._undo_copy()
            self._audit("install_abort", reason=getattr(error, "slug", type(error).__name__))
            end_marker(self._layout)
        except EdgekitError as second:
            # What is left may still be needed, and the next run knows from the marker what to do.
            self._listener(Warned(f"could not undo everything: {second.message}"))

    def _undo_services(self) -> None:
        serves = generations.current_generation(self._layout)
        if not self._touched_services and serves != self._plan.generation:
            return
        if self._previous is None:
            deactivate(self._layout, self._services)
        elif self._layout.is_private:
            self._services.stop()
            generations.switch_current(self._layout, self._previous)
        else:
            activate(self._layout, self._previous, self._services)

    def _undo_copy(self) -> None:
        discard_staging(self._layout, self._plan.generation)
        if not self._repairing:
            discard_blobs(self._layout, self._brought)

    def _undo_files(self) -> None:
        serves = generations.current_generation(self._layout)
        if not self._was_committed and serves != self._plan.generation:
            generations.remove_generation(self._layout, self._plan.generation)
        if self._first_ever:
            discard_api_keys(self._layout)

    def _audit(self, kind: str, **fields: str) -> None:
        statement = self._plan.statement
        record = {
            "type": kind,
            "attempt": self._attempt,
            "generation": self._plan.generation,
            "statement": str(statement.digest),
            "signers": ",".join(statement.signers),
            "policy": statement.policy,
            "edgekit": __version__,
            "root_version": str(self._verified.root.version),
            "actor": f"uid {os.getuid()}",
            **({"break_glass": self._break_glass} if self._break_glass else {}),
            **fields,
        }
        audit_event(self._layout, record)


def advance_trust(layout: HostLayout, verified: VerifiedSet) -> None:
    """Raise root and floor to a committed release's (I6); writes only what is not there yet.

    Raises DiskFullError, PrivilegeError or HostError.
    """
    store = TrustStore(layout.trust)
    store.save_root(verified.root)
    store.save_floor(trust.statement_floor(verified.statement))  # a downgrade lowers nothing
