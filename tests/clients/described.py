"""Schemathesis against a running gateway."""

from __future__ import annotations

import re
import subprocess

from tests.gateway.conftest import Site
from tests.support.client_environments import python_with_clients

# Schemas are wider than what is accepted: they cannot say which blocks a role may send, how many
# tokens a vocabulary has, or that integers have 64 bits. All other checks hold.
UNCHECKED = "positive_data_acceptance"


def check_description(site: Site, phases: str, examples: int, seed: int = 1) -> tuple[int, str]:
    """How many requests were made, and the report. Fails on any finding, and on untested calls."""
    document = site.http.get("/openapi.json").json()
    operations = sum(len(verbs) for verbs in document["paths"].values())
    done = subprocess.run(
        [
            str(python_with_clients().with_name("schemathesis")), "run",
            f"{site.url}/openapi.json", "-H", f"Authorization: Bearer {site.token}",
            "--phases", phases, "--max-examples", str(examples), "--seed", str(seed),
            "--exclude-checks", UNCHECKED, "--no-color",
        ],
        cwd=site.work, check=False, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    # the description itself is read, and not among the tested calls
    assert f"Tested: {operations - 1}\n" in done.stdout, done.stdout[-2000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout[-2000:]
    return int(generated[1]), done.stdout
