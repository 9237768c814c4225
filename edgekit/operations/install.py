"""`edgekit plan` and `edgekit install`: from a verified set to a serving host, or no change at all.

The invariants I1 to I10 of bundle-v1 section 11 are cited where they hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.core import trust
from edgekit.core.api_keys import ID_BYTES, SECRET_BYTES, KeyRing, encode_keys, make_api_key
from edgekit.core.appliance import MAX_BYTES as MAX_APPLIANCE_BYTES
from edgekit.core.appliance import Appliance, parse_appliance
from edgekit.core.events import Finished, Listener, Started, Warned
from edgekit.core.facts import HostReport
from edgekit.core.host_layout import DEFAULT_LISTEN, HostLayout
from edgekit.core.install_plan import InstallPlan, plan_install, plan_table
from edgekit.core.planner import check_compatible, select_all
from edgekit.errors import EdgekitError, PrivilegeError
from edgekit.operations.probe import probe_host
from edgekit.operations.verify import Trusting, verify_metadata
from edgekit.system import generations, health
from edgekit.system.audit_client import append_event
from edgekit.system.audit_log import append_offline
from edgekit.system.blob_store import copy_blobs, discard_staging, present_blobs
from edgekit.system.bundle_set import VerifiedSet
from edgekit.system.files import durable_write, exclusive_lock, read_bounded
from edgekit.system.images import has_podman, load_image, pinned_reference
from edgekit.system.resources import read_unit_templates
from edgekit.system.services import (
    ForegroundServices,
    Services,
    SystemdServices,
    check_port_free,
)
from edgekit.system.trust_store import TrustStore


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What the operator may say. `report` replaces the probe (a report taken elsewhere)."""

    folders: tuple[Path, ...]
    layout: HostLayout
    listen: str = DEFAULT_LISTEN
    fingerprint: str | None = None
    insecure_developer: bool = False
    report: HostReport | None = None

    def trusting(self) -> Trusting:
        """Whom this command trusts."""
        return Trusting(self.layout, self.fingerprint, self.insecure_developer)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done: times in seconds by step, and the clear API key when one was made.

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

    def table(self) -> dict[str, Any]:
        """The receipt as plain JSON values, without the key's secret."""
        table = {"schema": "edgekit.receipt/1", **asdict(self)}
        del table["api_key"]
        table["seconds"] = {name: round(value, 3) for name, value in self.seconds.items()}
        return table


def plan(options: InstallOptions) -> tuple[VerifiedSet, InstallPlan]:
    """Verify the metadata, probe, decide. Changes nothing.

    Raises what verification raises, IncompatibleHostError, InsufficientError.
    """
    verified = verify_metadata(options.folders, options.trusting())  # I1
    layout = options.layout
    report = options.report or probe_host(places=(layout.state, layout.opt))
    check_compatible(verified.manifest, report)
    sizes = {entry.digest: entry.size for entry in verified.manifest.entries}
    decided = plan_install(
        manifest=verified.manifest,
        statement=verified.statement,
        selections=select_all(verified.manifest, report),
        report=report,
        layout=layout,
        templates=read_unit_templates(),
        present=present_blobs(layout, sizes),
        listen=options.listen,
        previous=generations.current_generation(layout),
    )
    return verified, decided


def install(options: InstallOptions, listener: Listener) -> Receipt:
    """Install a set: old or new at every moment, and old again after any failure.

    Raises BusyError, PrivilegeError, what `plan` raises, DigestError, DiskFullError, EngineError,
    PortInUseError. A copy that was interrupted is resumed by the next run.
    """
    layout = options.layout
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("installing needs root", hint="sudo edgekit install SET")
    _check_lock_folder(layout)
    with exclusive_lock(layout.lock, "this host"):
        verified, decided = plan(options)
        if decided.previous == decided.generation:
            return _nothing_to_do(decided)
        if decided.previous is None:
            check_port_free(options.listen)
        return _Installation(options, verified, decided, listener).run()


def _check_lock_folder(layout: HostLayout) -> None:
    """A private root is made on first use; a real host has /run."""
    if layout.is_private:
        layout.run.mkdir(parents=True, exist_ok=True)


def _nothing_to_do(decided: InstallPlan) -> Receipt:
    return Receipt(
        decided.generation, decided.generation, True, 0, {}, (), "", decided.appliance.listen
    )


class _Installation:
    """One run of the plan's steps, with the times of each and the way back."""

    def __init__(
        self,
        options: InstallOptions,
        verified: VerifiedSet,
        decided: InstallPlan,
        listener: Listener,
    ) -> None:
        self._options = options
        self._verified = verified
        self._plan = decided
        self._layout = decided.layout
        self._listener = listener
        self._seconds: dict[str, float] = {}
        self._services: Services = (
            ForegroundServices(self._layout)
            if self._layout.is_private
            else SystemdServices(self._layout)
        )

    def run(self) -> Receipt:
        """Carry out the plan; on any failure undo it and re-raise."""
        new_key = ""
        self._audit("install_begin")  # I7
        try:
            with self._timed("copy"):
                self._copy()
            with self._timed("build"):
                new_key = self._build()
            images = self._load_images()
            with self._timed("start"):
                self._switch_and_start()
            with self._timed("health"):
                self._check_health()
        except BaseException as error:
            self._undo(error)
            raise
        self._commit()
        receipt = Receipt(
            generation=self._plan.generation,
            previous=self._plan.previous or "",
            already_installed=False,
            copied_bytes=self._plan.copy_bytes,
            seconds=self._seconds,
            images=images,
            api_key=new_key,
            listen=self._plan.appliance.listen,
        )
        folder = self._layout.generation(self._plan.generation)
        durable_write(folder / "receipt.json", _pretty(receipt.table()))
        if isinstance(self._services, ForegroundServices):
            self._services.stop()
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

    def _build(self) -> str:
        """The generation's folder and, the first time, the host's API keys."""
        documents = {
            "plan.json": _pretty(plan_table(self._plan)),
            "release.json": self._verified.metadata["release.json"],
            "manifest.json": self._verified.metadata["manifest.json"],
            "root.json": self._verified.root.data,
        }
        generations.build_generation(self._plan, documents)  # I4
        return _ensure_api_keys(self._layout)

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
            loaded.append(pinned_reference(image))
        return tuple(loaded)

    def _switch_and_start(self) -> None:
        if isinstance(self._services, SystemdServices):
            self._services.stop()
            self._services.link_units(tuple(name for name, _ in self._plan.units))
        generations.switch_current(self._layout, self._plan.generation)  # I5
        self._services.start(self._plan.appliance)

    def _check_health(self) -> None:
        key = read_bounded(self._layout.local_key, 1000, "local key").decode().strip()
        health.ask_known_questions(self._plan.appliance, key)  # I9

    def _commit(self) -> None:
        statement = self._plan.statement
        store = TrustStore(self._layout.trust)
        if store.load().root != self._verified.root:
            store.save_root(self._verified.root)
        floor = trust.Floor(statement.epoch, statement.sequence, str(statement.digest))
        store.save_floor(floor)  # I6
        self._audit("install_commit")  # I7

    def _undo(self, error: BaseException) -> None:
        """Back to what served before; the first failure is what gets reported."""
        self._listener(Warned("undoing the installation"))
        with contextlib.suppress(EdgekitError):
            self._services.stop()
        serving = generations.current_generation(self._layout)
        if serving == self._plan.generation:
            self._switch_back()
        with contextlib.suppress(EdgekitError):
            generations.remove_generation(self._layout, self._plan.generation)
            if isinstance(error, EdgekitError):  # an interrupted copy is kept for the next run
                discard_staging(self._layout, self._plan.generation)
        with contextlib.suppress(EdgekitError):
            self._audit("install_abort", reason=getattr(error, "slug", type(error).__name__))

    def _switch_back(self) -> None:
        previous = self._plan.previous
        if previous is None:
            generations.clear_current(self._layout)
            if isinstance(self._services, SystemdServices):
                self._services.unlink_units()
            return
        generations.switch_current(self._layout, previous)
        if isinstance(self._services, SystemdServices):
            old = self._layout.generation(previous)
            names = tuple(sorted(path.name for path in (old / "units").iterdir()))
            self._services.link_units(names)
            self._services.start(load_appliance(self._layout, previous))

    def _audit(self, kind: str, **fields: str) -> None:
        statement = self._plan.statement
        record = {
            "type": kind,
            "generation": self._plan.generation,
            "statement": str(statement.digest),
            "signers": ",".join(statement.signers),
            "policy": statement.policy,
            "edgekit": __version__,
            "actor": f"uid {os.getuid()}",
            **fields,
        }
        audit_event(self._layout, record)


def audit_event(layout: HostLayout, record: dict[str, str]) -> None:
    """Make an event durable in the audit log: through the writer when it runs, else directly.

    Raises AuditUnavailableError: what cannot be recorded is not done.
    """
    socket_path = layout.audit_socket()
    if socket_path.exists():
        try:
            append_event(str(socket_path), record)
        except EdgekitError:
            append_offline(layout.audit, [record])  # the socket of a writer that is gone
    else:
        append_offline(layout.audit, [record])


def load_appliance(layout: HostLayout, generation: str) -> Appliance:
    """Settings of an installed generation. Raises HostError or FormatError."""
    path = layout.generation(generation) / "appliance.json"
    return parse_appliance(read_bounded(path, MAX_APPLIANCE_BYTES, "appliance.json"))


def _ensure_api_keys(layout: HostLayout) -> str:
    """Make the first user key and root's local key when there are none; the user key's token."""
    if layout.api_keys.exists() and layout.local_key.exists():
        return ""
    now = int(time.time())
    user, token = make_api_key(
        secrets.token_bytes(ID_BYTES),
        secrets.token_bytes(SECRET_BYTES),
        scopes=("chat",),
        note="first key, made by install",
        created=now,
    )
    local, local_token = make_api_key(
        secrets.token_bytes(ID_BYTES),
        secrets.token_bytes(SECRET_BYTES),
        scopes=("chat", "metrics", "admin"),
        note="this host's root",
        created=now,
    )
    layout.configuration.mkdir(parents=True, exist_ok=True, mode=0o755)
    durable_write(layout.api_keys, encode_keys(KeyRing((user, local))), mode=0o600)
    durable_write(layout.local_key, local_token.encode() + b"\n", mode=0o600)
    return token


def _pretty(table: dict[str, Any]) -> bytes:
    return json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"
