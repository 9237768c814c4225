"""The site configuration: strict, with line numbers, documented from its own classes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.appliance import at_site
from edgekit.core.config_rules import is_address, keys_of
from edgekit.core.site_config import (
    TABLES,
    EngineConfig,
    ServerConfig,
    SiteConfig,
    parse_site_config,
    render_config,
)
from edgekit.errors import ConfigError
from edgekit.exit_codes import ExitCode
from edgekit.system.site_config import check_site_file, load_site_config
from tests.gateway.conftest import make_appliance

WHOLE = b"""\
schema = 1

[server]
listen = "127.0.0.1:8080"
allowed_hosts = ["edge.site", "edge"]

[engine]
start_timeout_s = 600
"""


def parse(text: str | bytes) -> SiteConfig:
    data = text.encode() if isinstance(text, str) else text
    return parse_site_config(data, file="edgekit.toml")


def test_whole_file() -> None:
    config = parse(WHOLE)
    assert config.server == ServerConfig("127.0.0.1:8080", ("edge.site", "edge"))
    assert config.engine.start_timeout_s == 600


def test_only_the_schema_is_required() -> None:
    assert parse("schema = 1") == SiteConfig()


@pytest.mark.parametrize("config", [SiteConfig(), parse(WHOLE)])
def test_shown_configuration_parses_to_itself(config: SiteConfig) -> None:
    assert parse(render_config(config)) == config


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("[server]\nlisten = '1.2.3.4:1'", "missing key", "key schema, line 1"),
        ("schema = 2", "2 is outside 1 to 1", "key schema, line 1"),
        ("schema = 1\n\n[server]\nlisten = 'a'\nlissen = 1", "not a numeric", "line 4"),
        ("schema = 1\n\n[server]\n\nlissen = 1", "unknown key", "key server.lissen, line 5"),
        ("schema = 1\n[sever]", "unknown key", "key sever, line 2"),
        ("schema = 1\nserver = 3", "expected a table", "key server, line 2"),
        ("schema = 1\n[engine]\nstart_timeout_s = -5", "outside 0", "start_timeout_s, line 3"),
        ("schema = 1\n[engine]\nstart_timeout_s = true", "expected an integer", "line 3"),
        ("schema = 1\n[server]\nallowed_hosts = ['a',\n'b c']", "does not match", "line 4"),
    ],
)
def test_refusals_name_key_and_line(text: str, message: str, place: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text)
    assert caught.value.where is not None
    assert place in caught.value.where
    assert caught.value.hint == "edgekit config check edgekit.toml"


@pytest.mark.parametrize("data", [b"\xff", b"schema =", b"x" * ((1 << 20) + 1)])
def test_bytes_that_are_no_configuration(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse(data)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("127.0.0.1:11434", True),
        ("[::1]:80", True),
        ("0.0.0.0:65535", True),
        ("::1:80", False),
        ("[127.0.0.1]:80", False),
        ("localhost:80", False),
        ("127.0.0.1:65536", False),
        ("127.0.0.1:0", False),
        ("127.0.0.1:", False),
        ("127.0.0.1", False),
        ("127.0.0.1:٨٠", False),
    ],
)
def test_addresses(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


def test_older_schemas_are_migrated_in_memory() -> None:
    def rename(table: dict[str, object]) -> dict[str, object]:
        return {"schema": 2, "server": {"listen": table["address"]}}

    config = parse_site_config(
        b'schema = 1\naddress = "127.0.0.1:1"', file="f", schema=2, migrations={1: rename}
    )
    assert config.server.listen == "127.0.0.1:1"


def test_every_key_has_a_meaning_and_a_default_that_its_rule_accepts() -> None:
    for name, kind in TABLES:
        for key in keys_of(kind):
            assert key.meaning, f"{name}.{key.name}"
    assert parse(render_config(SiteConfig())) == SiteConfig()


def test_site_goes_over_the_plan() -> None:
    appliance = make_appliance(Path("/run/x"), 1, engine_socket="/run/x/s")
    site = SiteConfig(ServerConfig("127.0.0.1:8080"), EngineConfig(77))
    assert at_site(appliance, site).listen == "127.0.0.1:8080"
    assert {engine.start_timeout_s for engine in at_site(appliance, site).engines} == {77}
    assert at_site(appliance, SiteConfig()) == appliance


def test_absent_file_means_defaults(tmp_path: Path) -> None:
    assert load_site_config(tmp_path / "edgekit.toml") == SiteConfig()


@pytest.mark.parametrize(("mode", "is_fine"), [(0o644, True), (0o600, False), (0o664, False)])
def test_mode(tmp_path: Path, mode: int, is_fine: bool) -> None:
    path = tmp_path / "edgekit.toml"
    path.write_bytes(WHOLE)
    path.chmod(mode)
    if is_fine:
        check_site_file(path)
        return
    with pytest.raises(ConfigError, match="mode"):
        check_site_file(path)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path)]
    assert main(["config", "check", *root]) == ExitCode.OK
    assert "does not exist" in capsys.readouterr().out
    path = tmp_path / "etc/edgekit/edgekit.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(WHOLE)
    path.chmod(0o644)
    assert main(["config", "show", *root]) == ExitCode.OK
    assert tomllib.loads(capsys.readouterr().out)["server"]["listen"] == "127.0.0.1:8080"
    path.write_bytes(WHOLE + b"typo = 1\n")
    assert main(["config", "check", str(path)]) == ExitCode.CONFIG
    assert "line 9" in capsys.readouterr().err
    assert main(["config", "check", str(tmp_path / "none")]) == ExitCode.CONFIG
