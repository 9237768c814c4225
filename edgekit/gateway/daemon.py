"""`gateway --appliance FILE --keys FILE`: serve the inherited socket until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.core.api_keys import parse_keys
from edgekit.core.appliance import Appliance, at_site, parse_appliance
from edgekit.core.audit_texts import load_recipient
from edgekit.core.config_rules import is_loopback
from edgekit.core.derived import with_derived
from edgekit.core.site_config import SiteConfig
from edgekit.core.text_policy import TextMode
from edgekit.errors import EdgekitError, FormatError, HostError, PortInUseError, TrustError
from edgekit.exit_codes import ExitCode
from edgekit.gateway.app import Gateway
from edgekit.gateway.control import listen
from edgekit.gateway.guard import split_host
from edgekit.gateway.logs import note, start_log
from edgekit.gateway.quotas import keep_quotas, save_quotas
from edgekit.gateway.server import BACKLOG, Listener, Server
from edgekit.gateway.texts import TextKeeper
from edgekit.system.audit_texts import TextStore
from edgekit.system.derived_models import load_all
from edgekit.system.host_secret import SECRET_BYTES, ensure_secret
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.site_config import load_site_config

FIRST_INHERITED_FD = 3
MAX_LISTENERS = 8
GC_THRESHOLD = 20_000
"""Objects between two collections: requests leave few cycles, and looking for them costs 2 %."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway until SIGTERM or SIGINT; returns its exit code."""
    options = _options(argv)
    start_log()
    try:
        site = load_site_config(options.config) if options.config else SiteConfig()
        appliance = at_site(parse_appliance(_read(options.appliance)), site)
        appliance = _with_derived(appliance, options.appliance.parent, options.config)
        ring = parse_keys(_read(options.keys or _credential("api-keys")))
        sockets = inherited_sockets(os.environ) or [_own_socket(appliance.listen)]
        served = listeners(sockets, site.server.lan, _credentials(os.environ))
        if not ring.keys and any(listener.tls for listener in served):
            raise TrustError(
                "no API key exists, and the API listens beyond this host",
                where=", ".join(map(_address, sockets)),
                hint="edgekit key add NOTE",
            )
        hosts = (*options.allow_host, *site.server.allowed_hosts)
        gateway = Gateway(
            appliance,
            ring,
            _hmac_key(os.environ),
            hosts,
            _text_keeper(site, options.config, os.environ),
            plan=_plan(options.appliance.with_name("plan.json")),
            disk=_state_directory(os.environ),
            log_requests=site.server.log_requests,
        )
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-gateway: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    # uvicorn raises the signal it stopped for once more at its end: here it means a clean stop
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # what start-up made stays: collections then look at requests alone, and do not stop the loop
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    asyncio.run(_serve(gateway, served, options.control))
    return int(ExitCode.OK)


def inherited_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets systemd passed (sd_listen_fds(3)); none when it passed none."""
    count, pid = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_PID", "")
    if not count.isdigit() or int(count) > MAX_LISTENERS or (pid and pid != str(os.getpid())):
        return []
    first = FIRST_INHERITED_FD
    return [socket.socket(fileno=number) for number in range(first, first + int(count))]


def listeners(
    sockets: Sequence[socket.socket], lan: str, credentials: Path | None
) -> list[Listener]:
    """How each socket is served: in the clear on this host's own addresses, else with TLS.

    Raises TrustError when an address beyond this host has no certificate.
    """
    made = []
    for sock in sockets:
        address = _address(sock)
        if address != lan and is_loopback(address):
            made.append(Listener(sock))
            continue
        if credentials is None or not (credentials / "tls-certificate").exists():
            raise TrustError(
                "the API listens beyond this host, and there is no certificate for it",
                where=address,
                hint="edgekit config apply",
            )
        made.append(Listener(sock, tls_context(credentials)))
    return made


def tls_context(credentials: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate among the credentials. Raises TrustError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(credentials / "tls-certificate", credentials / "tls-key")
        if (credentials / "tls-client-ca").exists():
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(credentials / "tls-client-ca")
    except (OSError, ssl.SSLError) as error:
        raise TrustError(
            "the certificate, its key or the clients' authorities cannot be used",
            found=str(error),
            needed="PEM files that belong together",
        ) from error
    return context


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _serve(gateway: Gateway, served: list[Listener], control: Path | None) -> None:
    controlled = await listen(control, gateway.replace_keys) if control else None
    note("started", listeners=[_address(listener.sock) for listener in served])
    folder = _state_directory(os.environ)
    beside = [asyncio.create_task(_ping())]
    if folder:
        beside.append(asyncio.create_task(keep_quotas(folder, gateway.limits)))
    try:
        await Server(gateway, served).serve()
    finally:
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if folder:
            save_quotas(folder, gateway.limits.day_uses())
        if controlled is not None:
            controlled.close()
        gateway.close()
        note("stopped")


async def _ping() -> None:
    """Tell the watchdog that this loop still turns."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgekit-gateway", description="the appliance's API")
    parser.add_argument("--appliance", type=Path, required=True, help="appliance.json")
    parser.add_argument(
        "--keys", type=Path, help="API keys file (default: $CREDENTIALS_DIRECTORY/api-keys)"
    )
    parser.add_argument(
        "--config", type=Path, help="the site's configuration (default: every key's default)"
    )
    parser.add_argument(
        "--control", type=Path, help="socket on which root hands over new API keys (default: none)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name clients may use in the Host header; may be given again",
    )
    return parser.parse_args(argv)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError("cannot read", where=str(path), found=error.strerror) from error


def _with_derived(appliance: Appliance, generation: Path, config: Path | None) -> Appliance:
    """With the release's Modelfiles, and those of this host, which lie beside its configuration."""
    path = config.with_name("models.json") if config else None
    created = max((model.created for model in appliance.models), default=0)
    whole, problems = with_derived(appliance, load_all(generation, path, created))
    for problem in problems:
        note("a model made here does not serve", why=problem)
    return whole


def _credentials(environment: Mapping[str, str]) -> Path | None:
    directory = environment.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def _credential(name: str) -> Path:
    directory = _credentials(os.environ)
    if directory is None:
        raise FormatError("no API keys file given", needed="--keys or CREDENTIALS_DIRECTORY")
    return directory / name


def _plan(path: Path) -> dict[str, Any]:
    """The plan beside the settings, for people to look at; nothing is decided by it."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _state_directory(environment: Mapping[str, str]) -> Path | None:
    directory = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory) if directory else None


def _hmac_key(environment: Mapping[str, str]) -> bytes:
    """The key of prompt digests: kept in the state directory, or of this run alone without one."""
    directory = _state_directory(environment)
    if directory:
        return ensure_secret(directory / "audit-hmac.key")
    return secrets.token_bytes(SECRET_BYTES)


def _text_keeper(
    site: SiteConfig, config: Path | None, environment: Mapping[str, str]
) -> TextKeeper:
    """What the site keeps of texts. Raises FormatError when that cannot be done as asked."""
    policy = site.audit.text_policy()
    directory = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    recipient = None
    if config is not None and TextMode.SEALED in policy.modes():
        recipient = load_recipient(_read(config.with_name(site.audit.auditor_key)))
    store = TextStore(Path(directory) / "texts") if directory else None
    return TextKeeper(policy, recipient, store)


def _own_socket(listen: str) -> socket.socket:
    """A listening socket of our own, for hosts without socket activation."""
    name, port = split_host(listen)
    if port is None:
        raise FormatError("malformed listen address", found=listen, needed="address:port")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        return socket.create_server((name, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == 98:
            raise PortInUseError("the API's address is in use", where=listen) from error
        raise HostError("cannot listen", where=listen, found=error.strerror) from error


if __name__ == "__main__":
    sys.exit(main())
