"""Profiles and probe reports stand in for hosts that are not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.core.facts import parse_report, report_table
from edgekit.core.profile import parse_profile
from edgekit.errors import FormatError, RecipeError
from edgekit.operations.probe import load_host, probe_host

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = sorted((REPOSITORY / "profiles").glob("*.toml"))
PLACES = ("/var/lib/edgekit", "/opt/edgekit")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_that_comes_with_edgekit_is_named_as_its_file(path: Path) -> None:
    profile = parse_profile(path.read_bytes(), file=path.name, places=PLACES)
    assert profile.name == path.stem
    assert [disk.path for disk in profile.report.disks] == list(PLACES)
    assert (profile.report.memory.usable() or 0) > 0


def test_a_probe_report_survives_the_way_back_on_the_stick(tmp_path: Path) -> None:
    places = (tmp_path / "a", tmp_path / "b")
    report = probe_host(places=places)
    path = tmp_path / "host.json"
    path.write_text(json.dumps(report_table(report)), "utf-8")
    assert load_host(None, path, places=places) == report


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("cores = 4", "cores = 0", 7, "0 is outside 1"),
        ("cores = 4", 'cores = "four"', 7, "expected an integer, found a string"),
        ("disk_gib = 40", "disk_gb = 40", 0, "missing key"),
        ("systemd = 252", "systemd = 252\nspeed = 3", 13, "unknown key"),
    ],
)
def test_a_wrong_profile_names_key_and_line(old: str, new: str, line: int, words: str) -> None:
    text = (REPOSITORY / "profiles/laptop-8g.toml").read_text("utf-8").replace(old, new)
    with pytest.raises(RecipeError) as caught:
        parse_profile(text.encode(), file="p.toml", places=PLACES)
    assert words in caught.value.message
    if line:
        assert caught.value.where is not None
        assert caught.value.where.endswith(f"line {line}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table["cpu"]["arch"].update(value=5),
        lambda table: table["memory"]["total"].update(value=True),
        lambda table: table["memory"].pop("total"),
        lambda table: table.update(extra=1),
        lambda table: table["system"]["glibc"].update(value=[2]),
        lambda table: table.update(schema="edgekit.host/3"),
    ],
)
def test_a_damaged_report_is_refused(damage: object) -> None:
    table = json.loads(json.dumps(report_table(probe_host(places=(Path("/"),)))))
    damage(table)  # type: ignore[operator]
    with pytest.raises(FormatError):
        parse_report(json.dumps(table).encode(), file="host.json")
