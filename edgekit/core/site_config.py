"""The site's configuration, `/etc/edgekit/edgekit.toml`: what an operator may decide on a host.

The file outlives every release and is never rewritten by edgekit: a release that knows a newer
schema migrates an older file in memory, so that going back to the release before still finds the
file it knows. An absent file means the defaults. Reference: docs/reference/config.md, written from
the classes below.

To add a key, add a field made by `key` to the class of its table; nothing else lists keys.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgekit.core.config_rules import (
    Address,
    Boolean,
    Integer,
    Networks,
    Text,
    Texts,
    is_loopback,
    key,
    keys_of,
    read_table,
)
from edgekit.core.fields import Fields
from edgekit.core.text_policy import SETTINGS, TextPolicy, parse_rules
from edgekit.core.toml_lines import find_line
from edgekit.errors import ConfigError, EdgekitError

SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 20
PATH_PATTERN = r"|/[A-Za-z0-9._/-]+"
HOST_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"

Table = dict[str, Any]
Migration = Callable[[Table], Table]
MIGRATIONS: Mapping[int, Migration] = {}
"""From schema N to N + 1, on the parsed document; each is pure and gives a new document back."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the API listens and by which names clients may call it."""

    listen: str = key(
        "",
        Address(),
        "address of the API; empty keeps what the first installation listened on "
        "(`127.0.0.1:11434` unless `--listen` said otherwise)",
    )
    allowed_hosts: tuple[str, ...] = key(
        (),
        Texts("host names", max_items=64, pattern=HOST_PATTERN, max_length=253),
        "names besides the address that clients may call the API by (the `Host` header); any other "
        "name is refused, against DNS rebinding",
    )
    log_requests: bool = key(
        False,
        Boolean(),
        "a line in the gateway's journal for each request: key, model, counts, times; never a text",
    )
    lan: str = key(
        "",
        Address(),
        "where clients of the network connect, besides `listen`; always with TLS and a key; empty "
        "for nowhere",
    )
    lan_clients: tuple[str, ...] = key(
        (),
        Networks(max_items=64),
        "networks and addresses that may connect to `lan`; systemd drops what comes from others",
    )
    tls_certificate: str = key(
        "",
        Text("an absolute path", pattern=PATH_PATTERN, max_length=1024),
        "the site's own certificate for `lan`, with its chain (PEM); empty for one by this host's "
        "own authority (`edgekit tls show`)",
    )
    tls_key: str = key(
        "",
        Text("an absolute path", pattern=PATH_PATTERN, max_length=1024),
        "the private key of `tls_certificate` (PEM), readable for root alone; or, with a name that "
        "ends in `.cred`, the same after `systemd-creds encrypt --name=tls-key`",
    )
    tls_client_ca: str = key(
        "",
        Text("an absolute path", pattern=PATH_PATTERN, max_length=1024),
        "authorities (PEM) of which clients of `lan` must show a certificate; empty for no such "
        "need",
    )


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How engines are started."""

    start_timeout_s: int = key(
        0,
        Integer(0, 1100, "seconds"),
        "how long an engine may take from its start to the last right answer to its known "
        "questions; hashing the weights is not counted; 0 keeps the plan's 300 seconds",
    )


_SETTING = "|".join(SETTINGS)


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """What a release must do before it counts, beside answering its known questions."""

    min_tokens_per_second: int = key(
        0,
        Integer(0, 100_000, "tokens per second"),
        "least rate of each model's fastest known answer; a release below it is undone, at "
        "installation and after a boot; 0 keeps what the set asks of hosts like this one, 1 "
        "accepts any rate",
    )


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The audit log: its room and its pace, what it keeps of texts, where copies of records go."""

    max_mib: int = key(
        0,
        Integer(0, 1 << 30, "MiB"),
        "size of the audit log; at 98 % of it no new request is served; 0 keeps the size that was "
        "planned when the log was made: `days` times `requests_per_day`, at most a quarter of the "
        "disk's free space",
    )
    days: int = key(
        90, Integer(1, 3650, "days"), "how long the planned size lasts before it must be exported"
    )
    requests_per_day: int = key(
        20_000, Integer(1, 100_000_000), "how many requests a day the planned size is for"
    )
    epoch_s: int = key(
        300,
        Integer(10, 3600, "seconds"),
        "after how long the log is sealed: the MAC key moves on, what happened is signed, and an "
        "idle host leaves a sign of life",
    )
    texts: str = key(
        "hash",
        Text("", choices=tuple(SETTINGS)),
        "what is kept of prompts and answers: nothing but counts; keyed digests; also the texts, "
        "sealed to the auditor's key; also the texts, readable by this host's root",
    )
    texts_by_key: tuple[str, ...] = key(
        (),
        Texts("`KEY-ID=SETTING`", max_items=1000, pattern=rf"[0-9a-f]{{8}}=({_SETTING})"),
        "another setting for an API key; of a rule for the key and one for the model, the more "
        "private one counts",
    )
    texts_by_model: tuple[str, ...] = key(
        (),
        Texts("`MODEL=SETTING`", max_items=64, pattern=rf"[a-z0-9._:-]{{1,100}}=({_SETTING})"),
        "another setting for a model",
    )
    auditor_key: str = key(
        "auditor.pub.pem",
        Text("a file beside this one", pattern=r"[A-Za-z0-9._-]{1,80}"),
        "the public key that texts are sealed to, as `edgekit audit keygen` makes it",
    )
    forward: str = key(
        "none",
        Text("", choices=("none", "journald", "syslog")),
        "where a copy of every record goes: nowhere; this host's journal; this host's syslog "
        "(RFC 5424)",
    )
    forward_format: str = key(
        "json",
        Text("", choices=("json", "cef")),
        "the form of a record in a syslog message: itself; ArcSight's Common Event Format",
    )
    syslog_socket: str = key(
        "/dev/log",
        Text("an absolute path", pattern=r"/[A-Za-z0-9/._-]{1,100}"),
        'the socket that `forward = "syslog"` writes to',
    )

    def text_policy(self) -> TextPolicy:
        """The same as the policy that the gateway follows."""
        return TextPolicy(
            SETTINGS[self.texts], parse_rules(self.texts_by_key), parse_rules(self.texts_by_model)
        )


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The whole configuration. Every table and every key has a default."""

    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
    health: HealthConfig = HealthConfig()
    audit: AuditConfig = AuditConfig()


TABLES: tuple[tuple[str, type], ...] = tuple(
    (item.name, type(item.default)) for item in fields(SiteConfig)
)
"""(name, class) of every table, in the order of the reference."""


def parse_site_config(
    data: bytes,
    *,
    file: str,
    migrations: Mapping[int, Migration] = MIGRATIONS,
    schema: int = SCHEMA,
) -> SiteConfig:
    """TOML bytes to the configuration. `file` is how messages call it.

    Raises ConfigError that names file, key and line.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            "the configuration is too large", where=file, needed=f"{MAX_CONFIG_BYTES} bytes"
        )
    try:
        text = data.decode("utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            "the configuration is not valid TOML", where=file, found=str(error)
        ) from error

    def fail(message: str, path: str) -> EdgekitError:
        return ConfigError(
            message,
            where=f"{file}, key {path}, line {find_line(text, path)}",
            hint=f"edgekit config check {file}",
        )

    top = Fields(table, error=fail)
    found = top.integer("schema", low=1, high=schema)
    top = Fields(_migrate(table, found, schema, migrations), error=fail)
    top.take("schema", int)
    tables: Table = {name: read_table(kind, top.table(name, {})) for name, kind in TABLES}
    top.finish()
    site = SiteConfig(**tables)
    _check_server(site.server, fail)
    return site


def _check_server(server: ServerConfig, fail: Callable[[str, str], EdgekitError]) -> None:
    """What one key of `[server]` asks of another."""
    if server.listen and not is_loopback(server.listen):
        raise fail(
            "must be an address of this host alone; the network connects to `lan`", "server.listen"
        )
    if server.lan and not server.lan_clients:
        raise fail("`lan` needs `lan_clients`: who may connect", "server.lan")
    if bool(server.tls_certificate) != bool(server.tls_key):
        raise fail("`tls_certificate` and `tls_key` belong together", "server.tls_certificate")


def _migrate(table: Table, found: int, wanted: int, migrations: Mapping[int, Migration]) -> Table:
    for version in range(found, wanted):
        table = migrations[version](table)
    return table


def config_table(config: SiteConfig) -> Table:
    """Every key with the value in force, as plain JSON values (`edgekit.config/1`)."""
    tables: Table = {}
    for name, kind in TABLES:
        table = getattr(config, name)
        tables[name] = {item.name: _plain(getattr(table, item.name)) for item in keys_of(kind)}
    return {"schema": "edgekit.config/1", **tables}


def render_config(config: SiteConfig) -> str:
    """The configuration as a complete file, which parses to the same value.

    Keys that have their default are marked by a comment.
    """
    lines = [f"schema = {SCHEMA}"]
    for name, kind in TABLES:
        lines += ["", f"[{name}]"]
        for item in keys_of(kind):
            value = getattr(getattr(config, name), item.name)
            mark = "  # default" if value == item.default else ""
            lines.append(f"{item.name} = {render_value(value)}{mark}")
    return "\n".join(lines) + "\n"


def render_value(value: Any) -> str:
    """A value as TOML: for texts, whole numbers, booleans and lists of texts that is JSON."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
