"""A way that does not serve is undone, and the next one is tried: each once, and said."""

from __future__ import annotations

from pathlib import Path

from tests.support.appliance import DemoSet, RunningAppliance, free_port

UNREACHABLE = "schema = 1\n[health]\nmin_tokens_per_second = 100000\n"
STARTS = 3


def test_three_ways_are_tried_and_then_the_host_is_as_before(
    demo_set: DemoSet, tmp_path: Path
) -> None:
    """No engine reaches the speed that this site asks for, so every way fails for real."""
    host = RunningAppliance(demo_set, tmp_path / "h", free_port())
    site = host.root / "etc/edgekit/edgekit.toml"
    site.parent.mkdir(parents=True)
    site.write_text(UNREACHABLE, "utf-8")
    done = host.edgekit(
        "install", str(demo_set.folder), "--fingerprint", demo_set.fingerprint,
        "--insecure-developer-root", "--listen", f"127.0.0.1:{host.port}")
    assert done.returncode == 50, done.stderr
    said = [line for line in done.stderr.splitlines() if "taking the next way" in line]
    assert len(said) == len(set(said)) == STARTS - 1
    assert "/f16/" in said[0]
    assert "/q8_0/" in said[1]
    assert not (host.root / "opt/edgekit/current").exists()
