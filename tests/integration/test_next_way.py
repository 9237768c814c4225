"""A way that does not serve is undone, and the next one is tried: each once, and said.

What makes a way fail here for real is the least rate of answers that is asked of it.
"""

from __future__ import annotations

from pathlib import Path

from tests.conftest import bundle_demo
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


def test_a_set_asks_for_a_rate_by_kind_of_host_and_the_site_has_the_last_word(
    demo_set: DemoSet, tmp_path: Path
) -> None:
    demanding = bundle_demo(
        tmp_path, demo_set.signer, demo_set.root,
        ('license = "Apache-2.0"',
         'license = "Apache-2.0"\nmin_tokens_per_second = { cpu = 100000, gpu = 1 }'))
    host = RunningAppliance(demanding, tmp_path / "h", free_port())
    arguments = (
        "install", str(demanding.folder), "--fingerprint", demanding.fingerprint,
        "--insecure-developer-root", "--listen", f"127.0.0.1:{host.port}")
    done = host.edgekit(*arguments)
    assert done.returncode == 50, done.stderr
    assert "is slower than the set allows" in done.stderr
    assert "100000 tokens per second" in done.stderr
    site = host.root / "etc/edgekit/edgekit.toml"
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_text("schema = 1\n[health]\nmin_tokens_per_second = 1\n", "utf-8")
    done = host.edgekit(*arguments)
    assert done.returncode == 0, done.stderr
    assert (host.root / "opt/edgekit/current").exists()
