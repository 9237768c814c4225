"""An appliance on a machine with its own kernel: clock, memory, fs-verity, USB sticks, SELinux.

What a sealed host borrows from its outer machine is real here: an exFAT stick in a USB socket that
is pulled out in the middle, a clock at 1970 and at 2040, an engine that meets its MemoryMax,
weights that the kernel seals, SELinux with a policy that is enforced all the time. The processor is
emulated, so this takes minutes; the usual run repeats it only when something changed that it
depends on.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import bundle_demo
from tests.support.appliance import DemoSet
from tests.support.named_job import NamedJob
from tools.demo_guest import ANSWER, MODEL, QUESTION
from tools.demo_processes import edgekit
from tools.rootfs import build_rootfs, default_cache_dir
from tools.virtual_machine import KERNEL_PACKAGES, Machine

JOB = NamedJob(
    "An appliance on a machine with its own kernel",
    "python -m tests.machine runs it again",
    (
        "systemd", "tests/machine", "tools/virtual_machine.py",
        "edgekit/core/install_plan.py", "edgekit/operations/doctor.py",
        "edgekit/operations/boot_check.py", "edgekit/system/generations.py",
        "edgekit/system/selinux.py",
        "edgekit/operations/install.py", "edgekit/operations/installation.py",
        "edgekit/operations/media_write.py", "edgekit/operations/sealing.py",
        "edgekit/supervisor/weights.py",
        "edgekit/operations/media_check.py", "edgekit/system/block_reader.py",
        "edgekit/system/clock.py", "edgekit/system/files.py", "edgekit/system/medium.py",
        "edgekit/system/services.py", "edgekit/system/verity.py", "edgekit/system/volumes.py",
        "tools/rootfs.py",
    ),
)
BOOT_TIMEOUT_S = 900.0
STICK_BYTES = 2 << 30
PULL_AFTER_BYTES = 90 << 20
"""The stick is pulled when so much of it was read: the program, and half of a volume."""
LATE = "2040-01-01T00:00:00"
"""systemd resets a clock that is more than 15 years ahead of the day on which it was built."""
SERVICE_DOMAIN = "system_u:system_r:initrc_t:s0"
"""Where Debian's policy puts a service that it has no module for."""
DEBIANS_OWN = ("udev_t", "systemd_tmpfiles_t", "getty_t")
"""Services of Debian to which its own policy refuses something at every boot."""

PRELUDE = f"""
unit=edgekit-engine@{MODEL}.service
mkdir -p /media/usb
note() {{ echo "$2" > "/out/$1"; }}
ask() {{ timeout 120 /opt/edgekit/current/runtime/edgekit run {MODEL} "{QUESTION}"; }}
to_usb() {{ mount -t exfat -o "$1" /dev/disk/by-label/STICK /media/usb; }}
pull_during() {{  # pull_during COMMAND ...: the stick goes when enough of it was read
    local code=0 begin=$(sectors)
    ( while [ $(( ($(sectors) - begin) * 512 )) -lt {PULL_AFTER_BYTES} ]; do sleep 0.02; done
      echo "@pull" ) &
    "$@" > /out/pulled.txt 2>&1 || code=$?
    kill $! 2> /dev/null || true
    ls /dev/sda >> /out/pulled.txt 2>&1 || true
    umount -l /media/usb
    echo "@plug"
    for attempt in $(seq 100); do [ -e /dev/disk/by-label/STICK ] && break; sleep 0.2; done
    note pulled-code.txt "$code"
}}
domain() {{ tr -d '\\0' < "/proc/$(systemctl show --property=MainPID --value "$1")/attr/current"; }}
sectors() {{ set -- $(cat /sys/block/sda/stat); echo "$3"; }}
until_checked() {{  # the check after a boot holds the lock that an upgrade needs
    for attempt in $(seq 600); do
        ended=$(systemctl show --property=ExecMainExitTimestampMonotonic --value \\
            edgekit-boot-check.service || true)  # refused until it has given labels again
        [ "${{ended:-0}}" -gt 0 ] && return
        sleep 0.5
    done
    return 1
}}
"""

FIRST_BOOT = PRELUDE + """
echo "== facts"
note clock.txt "$(date +%s)"
note kernel.txt "$(uname -r)"
note controllers.txt "$(cat /sys/fs/cgroup/cgroup.controllers)"
note interfaces.txt "$(ls /sys/class/net)"
note policy.txt "$(getenforce)"

echo "== courier"
mkfs.exfat -L STICK /dev/sda > /dev/null
mount -t exfat -o context=system_u:object_r:dosfs_t:s0 /dev/sda /media/usb  # unknown to the policy
for set in /given/*; do
    /given/demo-small-1.0.0/edgekit media write "$set" /media/usb > "/out/write-${set##*/}.txt" 2>&1
done
umount /media/usb
to_usb ro
cd /media/usb/demo-small-1.0.0
./edgekit media check . > /out/check.txt

echo "== install"
./edgekit trust import trust/1.root.json --insecure-developer-root --fingerprint "$FINGERPRINT"
./edgekit plan . > /out/plan.txt
cd /
umount /media/usb  # what was read so far is forgotten
to_usb ro
pull_during /media/usb/demo-small-1.0.0/edgekit install /media/usb/demo-small-1.0.0
ls /opt/edgekit/current > /out/pulled-current.txt 2>&1 || true
systemctl list-units --all --no-legend --plain 'edgekit-*' > /out/pulled-units.txt
to_usb ro
cd /media/usb/demo-small-1.0.0
./edgekit install . --json > /out/receipt.json
cd /
umount /media/usb
ask > /out/answer-1970.txt

echo "== memory"
systemctl show --property=MemoryMax --value $unit > /out/memory-max.txt
cat "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value $unit)/memory.max" \\
    >> /out/memory-max.txt
cat "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value $unit)/memory.peak" \\
    > /out/memory-peak.txt 2> /dev/null || echo 0 > /out/memory-peak.txt
mkdir -p /etc/systemd/system/$unit.d
printf '[Service]\\nMemoryMax=24M\\nMemorySwapMax=0\\n' > /etc/systemd/system/$unit.d/low.conf
systemctl daemon-reload
systemctl restart $unit || true
for attempt in $(seq 240); do
    [ "$(systemctl is-active $unit)" = failed ] && break
    sleep 0.5
done
systemctl show --property=Result --value $unit > /out/result.txt
/opt/edgekit/current/runtime/edgekit doctor > /out/doctor.txt 2>&1 || true
journalctl --boot -o short-monotonic "UNIT=$unit" + _TRANSPORT=kernel | tail -n 300 \\
    > /out/journal-memory.txt
rm -r /etc/systemd/system/$unit.d/low.conf
systemctl daemon-reload
systemctl reset-failed $unit
systemctl restart $unit
ask > /out/answer-after-memory.txt

echo "== sealed weights"
settings=/opt/edgekit/current/appliance.json
grep -o '"verity": *"[^"]*"' $settings | head -n 1 > /out/verity.txt
weights=$(grep -o '"path": *"[^"]*"' $settings | head -n 1 | cut -d '"' -f 4)
lsattr -l "$weights" > /out/lsattr.txt
chmod u+w "$weights"
if printf x >> "$weights"; then note write.txt written; else note write.txt refused; fi

echo "== labels"
for name in edgekit-auditd edgekit-gateway "${unit%.service}"; do domain $name; echo; done \
    > /out/domains.txt
restorecon -R /opt/edgekit &> /dev/null  # it takes what lies there for data; may not write to 9p
systemctl daemon-reload  # until then systemd goes by the labels it has read
/opt/edgekit/current/runtime/edgekit doctor > /out/doctor-labels.txt 2>&1 || true
if systemctl restart edgekit-gateway; then note unlabelled.txt restarted
else note unlabelled.txt refused; fi
"""

SECOND_BOOT = PRELUDE + """
echo "== year 2040"
note clock-late.txt "$(date +%s)"
until_checked
systemctl restart edgekit-gateway
ask > /out/answer-late.txt
/opt/edgekit/current/runtime/edgekit status > /out/status-late.txt
/opt/edgekit/current/runtime/edgekit audit verify --json > /out/audit-late.json
"""

THIRD_BOOT = PRELUDE + """
echo "== upgrade"
until_checked
edgekit=/opt/edgekit/current/runtime/edgekit
$edgekit status --json > /out/before.json
to_usb ro
$edgekit install /media/usb/demo-small-1.1.0 --json > /out/upgraded.json
ask > /out/answer-upgraded.txt
$edgekit audit verify --json > /out/audit.json
$edgekit audit tail -n 1000 > /out/records.jsonl
"""


@dataclass
class Outcome:
    """The folder in which the machine left its results, and figures of the run."""

    out: Path
    figures: dict[str, Any] = field(default_factory=dict)
    denials: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A result file."""
        return (self.out / name).read_text("utf-8").strip()

    def json(self, name: str) -> Any:
        """A result file's content."""
        return json.loads(self.text(name))


def run_job(work: Path) -> Outcome:
    """Two sets, three boots of one machine. Raises what any step raises."""
    outcome = Outcome(work / "out")
    outcome.out.mkdir()
    older = bundle_sets(work)
    stick = work / "stick.img"
    with stick.open("wb") as file:
        file.truncate(STICK_BYTES)
    rootfs = build_rootfs(default_cache_dir(), packages=KERNEL_PACKAGES, report=print)
    boots = (
        ("1970", "1970-01-01T00:00:00", FIRST_BOOT),
        ("2040", LATE, SECOND_BOOT),
        ("now", None, THIRD_BOOT),
    )
    with Machine(rootfs, work / "machine") as machine:

        def follow(line: str) -> None:
            print(line, flush=True)
            if line == "@pull":
                machine.pull()
            elif line == "@plug":
                machine.plug()

        for name, clock, job in boots:
            text = f"FINGERPRINT={older.fingerprint}\n{job}"
            began = time.monotonic()
            run = machine.boot(text, given=older.folder.parent, out=outcome.out, clock=clock,
                         sticks=[stick], timeout_s=BOOT_TIMEOUT_S, on_line=follow)
            outcome.denials[name] = run.denials
            outcome.figures[f"boot_{name}_s"] = round(time.monotonic() - began)
    return outcome


def bundle_sets(work: Path) -> DemoSet:
    """The demo set, and beside it a newer one."""
    root = work / "root.json"
    edgekit("keys", "init", str(work / "developer"), "--root-out", str(root),
            "--insecure-developer")
    older = bundle_demo(work, work / "developer", root)
    bundle_demo(
        work, work / "developer", root, ('version = "1.0.0"', 'version = "1.1.0"'),
        ("sequence = 1", "sequence = 2"))
    return older


def check(outcome: Outcome) -> None:
    """Everything the job is for."""
    answers = {path.name: path.read_text("utf-8").strip()
               for path in outcome.out.glob("answer-*.txt")}
    assert len(answers) == 4
    assert set(answers.values()) == {ANSWER}
    _check_machine(outcome)
    _check_clocks(outcome)
    _check_memory(outcome)
    _check_weights(outcome)
    _check_stick(outcome)
    _check_policy(outcome)


def _check_machine(outcome: Outcome) -> None:
    assert "memory" in outcome.text("controllers.txt").split()
    assert outcome.text("interfaces.txt") == "lo"
    assert outcome.text("kernel.txt") != os.uname().release


def _check_clocks(outcome: Outcome) -> None:
    # systemd lifts a clock at 1970 to the day on which it was built, which is before the set's
    assert int(outcome.text("clock.txt")) < time.time() - 86400
    assert int(outcome.text("clock-late.txt")) >= 2_208_988_800
    plan = [line.split() for line in outcome.text("plan.txt").splitlines()]
    assert [words[0] for words in plan if words[1:2] == ["clock:"]] == ["warned"]
    assert "answers" in outcome.text("status-late.txt")
    for name in ("audit-late.json", "audit.json"):
        audit = outcome.json(name)
        assert audit["requests"] == audit["responses"] > 0, name
    kinds = [json.loads(line).get("type") for line in outcome.text("records.jsonl").splitlines()]
    assert "clock_jump" in kinds


def _check_memory(outcome: Outcome) -> None:
    shown, enforced = map(int, outcome.text("memory-max.txt").split())
    assert enforced == shown // 4096 * 4096  # whole pages
    outcome.figures["engine_memory_max"] = enforced
    outcome.figures["engine_memory_peak"] = int(outcome.text("memory-peak.txt"))
    # what systemd hears first, that a process died or what killed it; doctor knows in both cases
    assert outcome.text("result.txt") in ("oom-kill", "signal")
    told = outcome.text("doctor.txt")
    assert "needed more memory than planned" in told, told + outcome.text("journal-memory.txt")


def _check_weights(outcome: Outcome) -> None:
    assert '"sha256:' in outcome.text("verity.txt")
    assert "Verity" in outcome.text("lsattr.txt")
    assert outcome.text("write.txt") == "refused"


def _check_stick(outcome: Outcome) -> None:
    for name in ("demo-small-1.0.0", "demo-small-1.1.0"):
        assert "safe to remove" in outcome.text(f"write-{name}.txt")
    assert "is intact" in outcome.text("check.txt")
    assert int(outcome.text("pulled-code.txt")) != 0, outcome.text("pulled.txt")
    assert "Traceback" not in outcome.text("pulled.txt")
    assert "put it back and run the command again" in outcome.text("pulled.txt")
    assert "No such file" in outcome.text("pulled-current.txt")
    assert outcome.text("pulled-units.txt") == ""
    assert outcome.json("upgraded.json")["generation"] != outcome.json("before.json")["generation"]


def _check_policy(outcome: Outcome) -> None:
    """All ran under an enforced policy, which refused edgekit nothing while labels were right.

    The control is a host that was relabelled: then it refuses, and that is seen.
    """
    assert outcome.text("policy.txt") == "Enforcing"
    assert set(outcome.text("domains.txt").split()) == {SERVICE_DOMAIN}
    assert "have lost their SELinux labels" in outcome.text("doctor-labels.txt")
    assert outcome.text("unlabelled.txt") == "refused"
    denials = [line for lines in outcome.denials.values() for line in lines]
    ours = [line for line in denials if not any(f":{name}:" in line for name in DEBIANS_OWN)]
    control = [line for line in ours if "/edgekit-" in line and ":usr_t:" in line]
    assert any("edgekit-gateway.service" in line for line in control)
    assert ours == control
    outcome.figures["denials_of_debian"] = len(denials) - len(ours)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Room for about four gigabytes."""
    return tempfile.TemporaryDirectory(prefix="edgekit-machine-")
