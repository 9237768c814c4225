"""A host's whole life on a really sealed host, over five boots.

Install 1.0, use it, hurt it, upgrade to 1.1, reboot, roll back, try a release that answers junk,
let 1.1 go bad and boot it (it goes back by itself, once), collect garbage, remove. Each boot ends
with exit status 123 only when every step of its job ended well; the figures are printed with -s.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.main import main
from edgekit.system.sandbox_probe import FORBIDDEN, RUN_FROM_STATE
from tests.support.appliance import MODEL, DemoSet
from tools import sealed_host
from tools.demo_guest import UNITS, sandbox_probe_job
from tools.rootfs import SUITE
from tools.sealed_host import BootResult, SealedHost

MAX_SCORE_TENTHS = {"gateway": 5, "auditd": 5, "forward": 5, f"engine@{MODEL}": 5}
WATCHDOG_S = int(os.environ.get("EDGEKIT_LIFE_WATCHDOG_S", "6"))
"""Shorter than the unit's own 90 s, to save time; `EDGEKIT_LIFE_WATCHDOG_S=90` measures that."""
DEBIAN = os.environ.get("EDGEKIT_LIFE_DEBIAN", SUITE)
"""The host's Debian release; `EDGEKIT_LIFE_DEBIAN=trixie` tells the story on systemd 257."""
PODMAN = ("podman", "crun")

TOOLS = f"""
edgekit=/opt/edgekit/current/runtime/edgekit
engine=edgekit-engine@{MODEL}.service
hello='{{"model":"{MODEL}","messages":[{{"role":"user","content":"hello"}}],"max_tokens":1}}'
now() {{ date +%s%N; }}
since() {{ awk "BEGIN{{printf \\"%.2f\\", ($(now) - $1) / 1e9}}"; }}
note() {{ echo "$1 $2" >> /out/figures.txt; }}
serving() {{ basename "$(readlink /opt/edgekit/current)"; }}
ask() {{ $edgekit run {MODEL} "What is the capital of France?"; }}
http() {{  # http METHOD PATH [BODY]: the whole answer; waits as long as a client would
    local body="${{3:-}}"
    exec 3<>/dev/tcp/127.0.0.1/${{PORT:-11434}}
    printf '%s %s HTTP/1.1\\r\\nHost: 127.0.0.1:%s\\r\\nConnection: close\\r\\n' "$1" "$2" \\
        "${{PORT:-11434}}" >&3
    printf 'Authorization: Bearer %s\\r\\nContent-Type: application/json\\r\\n' \\
        "$(cat /etc/edgekit/local.key)" >&3
    printf 'Content-Length: %s\\r\\n\\r\\n%s' "${{#body}}" "$body" >&3
    timeout 60 cat <&3
    exec 3>&-
}}
until_checked() {{
    for attempt in $(seq 600); do
        case "$(systemctl is-active edgekit-boot-check.service)" in
            active|activating) sleep 0.2 ;;
            *) return 0 ;;
        esac
    done
    return 1
}}
go_bad() {{ sed -i 's/"Paris"/"Atlantis"/' /opt/edgekit/current/appliance.json; sync; }}
"""

FIRST_BOOT = (
    TOOLS
    + """
rmdir /opt; mkdir -p /var/opt; ln -s var/opt /opt  # as ostree hosts have it
mount --bind /usr /usr
mount -o remount,ro,bind /usr
cd /media/stick/demo-small-1.0.0
./edgekit trust import trust/1.root.json --insecure-developer-root --fingerprint @FINGERPRINT@
mkdir -p /etc/systemd/system/$engine.d
printf '[Service]\\nWatchdogSec=@WATCHDOG@\\n' > /etc/systemd/system/$engine.d/site.conf
systemd-run --quiet --unit=squatter --socket-property=ListenStream=127.0.0.1:11434 /bin/cat
./edgekit install . 2> /out/port-taken.txt && exit 1
systemctl stop squatter.socket
./edgekit plan . > /out/plan.txt
test ! -e /var/lib/edgekit/blobs
(umask 077; LC_ALL=tr_TR.UTF-8 TZ=Pacific/Kiritimati ./edgekit install . --json \\
    > /out/receipt.json)
ask > /out/answer-1.0.txt
$edgekit run edgekit-demo "my secret is tulip" > /dev/null
serving > /out/generation-1.0.txt
$edgekit status --json > /out/status.json
systemctl start edgekit-scrub.service
cp /var/lib/edgekit/scrub.json /out/scrub.json
systemctl is-active edgekit-scrub.timer
$edgekit doctor > /out/doctor-well.txt

systemd-analyze verify /etc/systemd/system/edgekit*.{service,socket,timer,target}
for unit in gateway auditd forward engine@edgekit-demo; do
    file=/etc/systemd/system/edgekit-$unit.service
    systemd-analyze security --offline=yes --no-pager $file | tail -n 1 | tee -a /out/scores.txt
done

kill -9 "$(systemctl show -p MainPID --value edgekit-gateway.service)"; began=$(now)
http GET /healthz | head -n 1 | grep -q ' 200 '
note gateway_back_s "$(since $began)"
kill -9 "$(systemctl show -p MainPID --value edgekit-auditd.service)"; began=$(now)
until http POST /v1/chat/completions "$hello" | head -n 1 | grep -q ' 200 '; do sleep 0.1; done
note audit_writer_back_s "$(since $began)"

supervisor=$(systemctl show -p MainPID --value $engine)
hung=$(cat /proc/$supervisor/task/$supervisor/children)
kill -STOP $hung; began=$(now)
until [ "$(systemctl show -p MainPID --value $engine)" != $supervisor ] &&
      [ "$(systemctl is-active $engine)" = active ]; do sleep 0.1; done
note hung_engine_replaced_s "$(since $began)"
ask > /out/answer-after-hang.txt
$edgekit doctor > /out/doctor-after-hang.txt || test $? -eq 3

# a canary is on its way through all of them when each is made to dump its core
canary="zq7-$(echo canary)"
hunt() { grep -a -l -r "[z]q7-canary" "$@" 2> /dev/null >> /out/canaries.txt || true; }
touch /out/canaries.txt
canary_asked() {
    printf '{"model":"@MODEL@","stream":true,"max_tokens":400,' > /out/ask
    printf '"messages":[{"role":"user","content":"%s"}]}' "$canary" >> /out/ask
    http POST /v1/chat/completions "$(cat /out/ask)" > /dev/null || true
}
main() { systemctl show -p MainPID --value $1; }
for unit in edgekit-auditd edgekit-gateway $engine; do
    pid=$(main $unit)
    test $unit = $engine && pid=$(cat /proc/$pid/task/$pid/children)
    pid=${pid%% *}
    echo "$unit $(grep 'Max core' /proc/$pid/limits) $(cat /proc/$pid/coredump_filter)" \\
        >> /out/cores.txt
    canary_asked & asking=$!
    sleep 0.3
    hunt /proc/[0-9]*/cmdline /proc/[0-9]*/environ
    kill -SEGV $pid
    wait $asking
    until [ "$(main $unit)" != "$pid" ] && ask > /dev/null 2>&1; do sleep 0.2; done
done
journalctl --sync
journalctl -o export > /tmp/journal.txt
grep -c 'signal 11\\|status=11/SEGV' /tmp/journal.txt > /out/crashes.txt
hunt /tmp/journal.txt /var /run /etc /tmp /root
find / -xdev -type f \\( -name 'core' -o -name 'core.*' -o -name '*.core' \\) \\
    -newer /out/scrub.json >> /out/canaries.txt
systemctl reset-failed 'edgekit*'  # these starts do not count towards the limits of what follows

$edgekit audit keygen /out/auditor
cp /out/auditor/auditor.pub.pem /etc/edgekit/
printf '%s\\n' 'schema = 1' '[server]' 'listen = "127.0.0.1:8099"' 'lan = "127.0.0.1:8443"' \\
    'lan_clients = ["127.0.0.0/8"]' '[audit]' 'forward = "journald"' \\
    'texts_by_model = ["@MODEL@=sealed"]' \\
    > /etc/edgekit/edgekit.toml
chmod 0644 /etc/edgekit/edgekit.toml
$edgekit config apply
PORT=8099 http GET /healthz | head -n 1 | grep -q ' 200 '
ask > /out/answer-8099.txt
ask_often() {
    for number in $(seq $1); do
        PORT=8099 http POST /v1/chat/completions "$hello" | head -n 1 | grep -q ' 200 '
    done
}
until_forwarded() {
    for attempt in $(seq 100); do
        $edgekit status --json > /out/forward.json
        grep -q '"waiting": 0' /out/forward.json && return 0
        sleep 0.2
    done
    return 1
}
began=$(now); ask_often 40; note forwarding_40_s "$(since $began)"
until_forwarded
journal=$(systemctl show -p MainPID --value systemd-journald.service)
kill -STOP $journal; began=$(now)
ask_often 400; note journal_stuck_400_s "$(since $began)"  # more records than the socket holds
$edgekit status --json > /out/forward-stuck.json
kill -CONT $journal
until_forwarded
journalctl --sync
journalctl -o json SYSLOG_IDENTIFIER=edgekit-audit EDGEKIT_TYPE=response | wc -l \\
    > /out/forwarded.txt
journalctl -o cat --output-fields=EDGEKIT_RECORD EDGEKIT_TYPE=response | head -n 1 \\
    > /out/forwarded-record.txt
$edgekit audit search --type response -n 100000 --json | grep -c '"type": "response"' \\
    > /out/answered.txt
$edgekit run edgekit-demo "my secret is tulip" > /dev/null
request=$($edgekit audit search --type request -n 100000 --json \\
    | sed -n 's/.*"request_id": "\\(.*\\)".*/\\1/p' | tail -n 1)
$edgekit audit text $request --key /out/auditor/auditor.pem > /out/text.txt 2> /out/parts.txt
grep -r tulip /var/lib/private/edgekit-gateway /var/log/journal /run/log/journal && exit 1
$edgekit audit erase --request $request --reason "a test"
$edgekit audit text $request 2> /out/erased.txt
$edgekit audit export --out /out/stick --format syslog
$edgekit audit anchor --to /out/stick
$edgekit audit report --out /out/report.html
$edgekit audit verify --json > /out/audit-host.json
cp /var/lib/edgekit/audit/audit-*/audit-*.signer.json /out/enrolled.signer.json
ls /etc/edgekit/tls > /out/tls.txt
systemctl cat edgekit-gateway.service | grep tls-key > /out/tls-unit.txt
sed -i '1s/./&x/' /etc/edgekit/tls/server.key.cred
systemctl restart edgekit-gateway.service && exit 1
systemctl show -p Result,ExecMainStatus edgekit-gateway.service > /out/tls-tampered.txt
sed -i '1s/\\(.\\)x/\\1/' /etc/edgekit/tls/server.key.cred
systemctl reset-failed edgekit-gateway.service
systemctl restart edgekit-gateway.service
printf 'schema = 1\\n[health]\\nmin_tokens_per_second = 90000\\n' > /etc/edgekit/edgekit.toml
$edgekit config apply 2> /out/config-refused.txt && exit 1
PORT=8099 http GET /healthz | head -n 1 | grep -q ' 200 '
test -f /etc/edgekit/edgekit.toml.refused
$edgekit config show > /out/config.txt
"""
    + "".join(sandbox_probe_job(unit) for unit in UNITS)
    + """
cd ../demo-small-1.1.0
./edgekit install .
serving > /out/generation-1.1.txt
test "$(systemctl show -p WatchdogUSec --value $engine)" = "@WATCHDOG_SHOWN@"
PORT=8099 http GET /healthz | head -n 1 | grep -q ' 200 '
"""
)

SECOND_BOOT = (
    TOOLS
    + """
until_checked
cat /var/lib/edgekit/boot.json > /out/boot-2.json
ask > /out/answer-after-reboot.txt
$edgekit rollback
serving > /out/rolled-back.txt
$edgekit status --json > /out/status-rolled-back.json
cd /media/stick/demo-small-1.2.0
./edgekit install . 2> /out/junk.txt && exit 1
serving > /out/after-junk.txt
ask > /out/answer-after-junk.txt
$edgekit rollback
test "$(serving)" = "$(cat /out/generation-1.1.txt)"
go_bad
"""
)

THIRD_BOOT = (
    TOOLS
    + """
until_checked
cat /var/lib/edgekit/boot.json > /out/boot-3.json
serving > /out/fell-back.txt
ask > /out/answer-fell-back.txt
$edgekit status > /out/status-fell-back.txt 2>&1
$edgekit audit tail -n 60 > /out/records-3.jsonl
cd /media/stick/demo-small-1.1.0
./edgekit install .
test "$(serving)" = "$(cat /out/generation-1.1.txt)"
go_bad
"""
)

FOURTH_BOOT = (
    TOOLS
    + """
PORT=8099
until_checked
cat /var/lib/edgekit/boot.json > /out/boot-4.json
serving > /out/stays.txt
http POST /v1/chat/completions "$hello" > /out/degraded.txt
$edgekit status > /out/status-degraded.txt 2>&1
$edgekit doctor > /out/doctor-degraded.txt || test $? -eq 3
$edgekit doctor --bundle /out/support.tar.gz > /dev/null || test $? -eq 3
$edgekit rollback
ask > /out/answer-rolled-back-again.txt
$edgekit pin "$(cat /out/generation-1.1.txt)"
$edgekit gc > /out/gc.txt
"""
)

FIFTH_BOOT = (
    TOOLS
    + """
until_checked
cat /var/lib/edgekit/boot.json > /out/boot-5.json
ask > /out/answer-last.txt
$edgekit audit verify --json > /out/audit.json
$edgekit remove
find / -xdev \\( -name '*edgekit*' -o -path '*/edgekit/*' \\) -not -path '/proc/*' \\
    -not -path '/sys/*' | sort > /out/left.txt
systemctl list-units --all --no-legend 'edgekit*' > /out/units-left.txt
"""
)


def as_systemd_shows(seconds: int) -> str:
    """A span of less than an hour."""
    minutes, rest = divmod(seconds, 60)
    parts = (f"{minutes}min" if minutes else "", f"{rest}s" if rest else "")
    return " ".join(filter(None, parts))


@dataclass
class Life:
    """The boots of one host, and the folder in which it left its results."""

    out: Path
    boots: list[BootResult] = field(default_factory=list)

    def text(self, name: str) -> str:
        return (self.out / name).read_text("utf-8").strip()

    def json(self, name: str) -> Any:
        return json.loads(self.text(name))

    def figures(self) -> dict[str, float]:
        pairs = (line.split() for line in self.text("figures.txt").splitlines())
        return {name: float(value) for name, value in pairs}


@pytest.fixture(scope="module")
def life(
    demo_set: DemoSet, newer_set: DemoSet, junk_set: DemoSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Life:
    missing = sealed_host.missing_requirements()
    if missing:
        pytest.skip("cannot run here: " + "; ".join(missing))
    os.environ.pop("PYTHONPATH", None)
    stick = demo_set.folder.parent
    assert newer_set.folder.parent == junk_set.folder.parent == stick
    work = tmp_path_factory.mktemp("life")
    rootfs = sealed_host.build_rootfs(
        sealed_host.default_cache_dir(), packages=PODMAN, suite=DEBIAN)
    lived = Life(work / "out")
    lived.out.mkdir()
    with SealedHost(rootfs, work / "hosts", "life") as host:
        for job in (FIRST_BOOT, SECOND_BOOT, THIRD_BOOT, FOURTH_BOOT, FIFTH_BOOT):
            text = job.replace("@FINGERPRINT@", demo_set.fingerprint)
            text = text.replace("@MODEL@", MODEL)
            text = text.replace("@WATCHDOG@", str(WATCHDOG_S))
            text = text.replace("@WATCHDOG_SHOWN@", as_systemd_shows(WATCHDOG_S))
            lived.boots.append(host.boot(text, stick=stick, out=lived.out, timeout_s=400))
    return lived


def test_every_boot_saw_all_of_its_steps(life: Life) -> None:
    print("\n" + ", ".join(f"boot {n}: {b.total_s:.0f} s" for n, b in enumerate(life.boots, 1)))
    assert [boot.exit_status for boot in life.boots] == [sealed_host.EXIT_OK] * 5


def test_every_answer_is_right(life: Life) -> None:
    names = sorted(path.name for path in life.out.glob("answer-*.txt"))
    assert len(names) == 8
    assert {life.text(name) for name in names} == {"The capital of France is Paris."}


def test_the_plan_prints_every_check_before_a_byte_is_copied(life: Life) -> None:
    lines = life.text("plan.txt").splitlines()
    verdicts = ("passed", "warned", "unknown")
    checks = [line.split()[1].rstrip(":") for line in lines if line.startswith(verdicts)]
    assert {"host", "writable", "runs", "clock", "port", "systemd", "memory", "disk"} <= set(checks)
    assert all(": needed " in line for line in lines if line.startswith("passed"))


def test_a_port_that_is_taken_is_found_before_a_byte_is_copied(life: Life) -> None:
    text = life.text("port-taken.txt")
    assert "error[port-in-use]" in text
    assert "needed  127.0.0.1:11434 free" in text
    assert "copy" not in text


def test_status_says_who_how_and_how_much(life: Life) -> None:
    status = life.json("status.json")
    assert status["generation"] == life.text("generation-1.0.txt")
    assert status["alive"] is True
    assert status["trust"]["signers"] == ["developer"]
    assert status["models"][0]["slots"] == 2
    assert status["models"][0]["memory_bytes"] > 0
    assert status["space"]["taken_bytes"] > 100 << 20
    assert {unit["active"] for unit in status["units"].values()} == {"active"}
    assert status["troubles"] == []


@pytest.mark.parametrize("unit", sorted(MAX_SCORE_TENTHS))
def test_units_are_hardened(life: Life, unit: str) -> None:
    line = next(x for x in life.text("scores.txt").splitlines() if f"edgekit-{unit}." in x)
    score = float(line.rpartition(": ")[2].split()[0])
    print(f"\n{unit}: {score}")
    assert score * 10 <= MAX_SCORE_TENTHS[unit]


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_refuses_all_that_is_forbidden(life: Life, unit: str) -> None:
    line = next(x for x in life.text("sandbox.txt").splitlines() if f"edgekit-{unit}:" in x)
    found = json.loads(line.partition(": ")[2])
    print(f"\n{unit}: {len(found)} refused: {found}")
    assert len(FORBIDDEN) >= 25
    without = {RUN_FROM_STATE} if unit.startswith("engine") else set()  # engines keep no state
    assert set(FORBIDDEN) - set(found) == without
    assert [name for name, result in found.items() if result == "ALLOWED"] == []


def test_daemons_that_crash_or_hang_are_replaced(life: Life) -> None:
    figures = life.figures()
    print("\n" + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    assert figures["gateway_back_s"] <= 3
    assert figures["audit_writer_back_s"] <= 5
    assert figures["hung_engine_replaced_s"] <= WATCHDOG_S + 5
    doctor = life.text("doctor-after-hang.txt")
    assert "runs, but was restarted" in doctor
    assert "seen  watchdog" in doctor


def test_no_text_is_left_in_journal_files_processes_or_core_dumps(life: Life) -> None:
    print("\n" + life.text("cores.txt"))
    cores = [line.split() for line in life.text("cores.txt").splitlines()]
    assert len(cores) == 3
    for unit, *limit, memory in cores:
        assert limit == ["Max", "core", "file", "size", "0", "0", "bytes"], unit
        assert int(memory, 16) == 0, unit
    assert int(life.text("crashes.txt")) >= 3
    assert life.text("canaries.txt") == ""


def test_a_configuration_is_applied_or_undone(life: Life) -> None:
    assert "slower than this site allows" in life.text("config-refused.txt")
    assert 'listen = "127.0.0.1:8099"' in life.text("config.txt")
    assert "min_tokens_per_second = 0" in life.text("config.txt")


def test_records_are_forwarded_and_a_stuck_journal_slows_no_answer(life: Life) -> None:
    figures, stuck = life.figures(), life.json("forward-stuck.json")["audit"]["forward"]
    flowing, blocked = figures["forwarding_40_s"] / 40, figures["journal_stuck_400_s"] / 400
    print(f"\nan answer: {flowing * 1000:.1f} ms while the journal takes records, "
          f"{blocked * 1000:.1f} ms while it is stopped, {stuck['waiting']} records waiting")
    assert blocked < 1  # one that waited for the journal would not come at all
    assert stuck["waiting"] > 0
    done = life.json("forward.json")["audit"]["forward"]
    assert (done["to"], done["waiting"], done["dropped"]) == ("journald", 0, 0)
    assert done["unit"]["active"] == "active"
    assert int(life.text("forwarded.txt")) == int(life.text("answered.txt")) > 400
    assert json.loads(life.text("forwarded-record.txt"))["~mac"]


def test_texts_are_sealed_to_the_auditor_and_erased(life: Life) -> None:
    assert "my secret is tulip" in life.text("text.txt")
    assert life.text("erased.txt").count("was erased") == 2
    assert life.json("forward.json")["audit"]["texts"]["models"] == {MODEL: "sealed"}


def test_the_export_is_verified_on_this_machine(life: Life) -> None:
    (package,) = (life.out / "stick").glob("edgekit-audit-*")
    brought = ["--pubkey", str(life.out / "enrolled.signer.json"), "--anchor",
               str(life.out / "stick")]
    assert main(["audit", "verify", "--log", str(package), *brought]) in (0, 3)
    manifest = json.loads(base64.b64decode(json.loads(
        (package / "export.json").read_bytes())["payload"]))
    assert manifest["first"] == 1
    assert life.json("audit-host.json")["records"] > manifest["last"] > 500
    syslog = b"".join(path.read_bytes() for path in sorted(package.glob("*.syslog")))
    assert len(syslog.splitlines()) == manifest["last"]
    assert "Intact." in life.text("report.html")


def test_the_tls_key_is_encrypted_for_this_machine(life: Life) -> None:
    assert life.text("tls.txt").split() == ["ca.key", "ca.pem", "server.key.cred", "server.pem"]
    assert life.text("tls-unit.txt").endswith(
        "LoadCredentialEncrypted=tls-key:/etc/edgekit/tls/server.key.cred")
    assert "ExecMainStatus=243" in life.text("tls-tampered.txt"), "243 is CREDENTIALS"


def test_a_reboot_is_checked_and_passes(life: Life) -> None:
    report = life.json("boot-2.json")
    assert (report["verdict"], report["serves"]) == ("passed", life.text("generation-1.1.txt"))


def test_the_timer_scrubs_everything(life: Life) -> None:
    report = life.json("scrub.json")
    assert report["bad"] == []
    assert report["files"] > 100
    assert report["bytes"] > 100 << 20


def test_rollback_changes_places(life: Life) -> None:
    assert life.text("rolled-back.txt") == life.text("generation-1.0.txt")
    assert life.json("status-rolled-back.json")["previous"] == life.text("generation-1.1.txt")


def test_a_release_that_answers_junk_is_undone(life: Life) -> None:
    assert "Atlantis" in life.text("junk.txt")
    assert life.text("after-junk.txt") == life.text("generation-1.0.txt")


def test_a_release_that_goes_bad_is_left_by_itself(life: Life) -> None:
    report = life.json("boot-3.json")
    assert (report["verdict"], report["generation"], report["serves"]) == (
        "went back", life.text("generation-1.1.txt"), life.text("generation-1.0.txt"))
    assert life.text("fell-back.txt") == life.text("generation-1.0.txt")
    assert "was left by itself" in life.text("status-fell-back.txt")
    kinds = [json.loads(line).get("type") for line in life.text("records-3.jsonl").splitlines()]
    assert kinds.index("fallback_begin") < kinds.index("fallback_commit")


def test_at_most_once_and_then_it_says_what_is_wrong(life: Life) -> None:
    report = life.json("boot-4.json")
    assert (report["verdict"], report["serves"]) == ("failed", life.text("generation-1.1.txt"))
    assert life.text("stays.txt") == life.text("generation-1.1.txt")
    answer = life.text("degraded.txt").lower()
    assert answer.startswith("http/1.1 503")
    assert "\nretry-after: " in answer
    assert "was given up" in life.text("status-degraded.txt")
    first, seen, *_ = life.text("doctor-degraded.txt").splitlines()
    assert first == "1. the model does not answer as its set promises"
    assert "edgekit-supervisor: " in seen
    assert "Atlantis" in seen
    assert "edgekit rollback" in life.text("doctor-degraded.txt")


def test_the_support_bundle_holds_no_secret(life: Life) -> None:
    import tarfile  # noqa: PLC0415

    key = life.json("receipt.json")["api_key"].encode()
    with tarfile.open(life.out / "support.tar.gz") as archive:
        contents = {
            item.name.rpartition("/")[2]: archive.extractfile(item).read()  # type: ignore[union-attr]
            for item in archive.getmembers()
        }
    assert set(contents) >= {"doctor.json", "status.json", "journal.txt", "probe.json", "units.txt"}
    for name, data in contents.items():
        assert not data.startswith(b"not collected"), name
        assert key not in data, name
        assert b"tulip" not in data, f"{name} holds a prompt"
    assert b"edgekit-supervisor" in contents["journal.txt"]


def test_gc_keeps_what_is_pinned_and_remove_leaves_the_audit_log_alone(life: Life) -> None:
    assert life.text("gc.txt").startswith("removed no release")
    assert life.json("boot-5.json")["verdict"] == "passed"
    audit = life.json("audit.json")
    # a question that the killed gateway had taken is closed by the audit writer
    assert audit["requests"] == audit["responses"] + audit["orphans"] > 0
    assert audit["orphans"] <= 1
    kept = ("/var/lib/edgekit/audit", "/var/lib/private/edgekit/audit", "/etc/systemd/system")
    left = [line for line in life.text("left.txt").splitlines() if not line.startswith(kept)]
    assert left == ["/var/lib/edgekit", "/var/lib/private/edgekit"]
    mine = "/etc/systemd/system/edgekit-engine@edgekit-demo.service.d"
    assert [x for x in life.text("left.txt").splitlines() if x.startswith("/etc")] == [mine]
    assert life.text("units-left.txt") == ""
