"""Models that take turns, and one made by a Modelfile, on a sealed host under its systemd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_on_demand import SECOND, bundle_turns
from tests.support.appliance import MODEL, DemoSet
from tools import sealed_host
from tools.sealed_host import SealedHost

JOB = f"""
edgekit=/opt/edgekit/current/runtime/edgekit
settings=/opt/edgekit/current/appliance.json
ask() {{ $edgekit run $1 "What is the capital of France?"; }}
in_memory() {{
    for engine in {MODEL} {SECOND}; do
        pid=$(systemctl show -p MainPID --value edgekit-engine@$engine.service)
        test -z "$(cat /proc/$pid/task/$pid/children)" || echo -n "$engine "
    done
}}
cd /media/stick/demo-turns-1.0.0
./edgekit trust import trust/1.root.json --insecure-developer-root --fingerprint @FINGERPRINT@
./edgekit install . --json > /out/receipt.json
# there is room for both: give them what one takes
sizes=$(grep -A2 '"claims"' $settings | sed -n 's/.*"host": \\([0-9]*\\).*/\\1/p')
room=$(printf "%s\\n" $sizes | sort -n | tail -1)
sed -i "s/\\"shared_room\\": [0-9]*/\\"shared_room\\": $room/" $settings
systemctl restart edgekit-gateway.service
for model in {MODEL} {SECOND} {MODEL}; do
    ask $model; in_memory; echo
done > /out/turns.txt
kill -9 "$(systemctl show -p MainPID --value edgekit-gateway.service)"
(ask {SECOND}; in_memory) > /out/after-kill.txt
printf 'FROM {MODEL}\\nPARAMETER temperature 0\\nPARAMETER num_predict 2\\n' > /run/Modelfile
$edgekit model create helper -f /run/Modelfile
ask helper > /out/helper.txt
$edgekit model list --json > /out/models.json
$edgekit model rm helper
! ask helper 2> /out/no-helper.txt
$edgekit doctor > /out/doctor.txt
$edgekit status > /out/status.txt 2>&1
"""


@pytest.fixture(scope="module")
def out(demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := sealed_host.missing_requirements():
        pytest.skip(f"cannot run here: {'; '.join(missing)}")
    turns = bundle_turns(demo_set)
    work = tmp_path_factory.mktemp("models")
    rootfs = sealed_host.build_rootfs(sealed_host.default_cache_dir(), packages=("podman", "crun"))
    folder = work / "out"
    folder.mkdir()
    with SealedHost(rootfs, work / "hosts", "models") as host:
        job = JOB.replace("@FINGERPRINT@", turns.fingerprint)
        boot = host.boot(job, stick=turns.folder.parent, out=folder, timeout_s=300)
    assert boot.exit_status == sealed_host.EXIT_OK, boot.describe()
    return folder


def test_the_model_that_is_asked_takes_the_others_place(out: Path) -> None:
    lines = (out / "turns.txt").read_text().splitlines()
    assert [line.strip() for line in lines[1::2]] == [MODEL, SECOND, MODEL]
    assert all("Paris" in line for line in lines[::2])


def test_a_killed_gateway_leaves_nothing_in_memory(out: Path) -> None:
    answer, there = (out / "after-kill.txt").read_text().splitlines()
    assert "Paris" in answer
    assert there.strip() == SECOND


def test_a_model_made_there_answers_and_goes(out: Path) -> None:
    listed = json.loads((out / "models.json").read_text())["models"]
    assert [(one["name"], one["made_from"]) for one in listed][-1] == ("helper", MODEL)
    assert 0 < len((out / "helper.txt").read_text().split()) <= 2
    assert "not found" in (out / "no-helper.txt").read_text()
