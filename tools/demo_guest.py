"""The operator's part of the demo: what is typed on the sealed host, and how it is shown here."""

from __future__ import annotations

import json
import re
import shlex
import time

from tools.demo_story import DONE, Story

QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."
MODEL = "edgekit-demo"
UNITS = ("gateway", "auditd", f"engine@{MODEL}")

_BOOTED = "Debian under its own systemd; the set is a read-only stick"
_SANDBOX = re.compile(r"^sandbox of edgekit-(?P<unit>\S+): (?P<found>\{.*\})$")
_UNINTERESTING = (
    "copy and verify: ",  # counted in copy
    "warning: container image ",  # the summary says so
    "WARNING: this host trusts a DEVELOPER",  # said when the keys are made
    "head: ",
)


def guest_job(fingerprint: str) -> str:
    """What the operator types on the sealed host, as a bash text; fails at the first surprise."""
    return f"""
echo "== sealed"
echo "python on this host: $(command -v python3 || echo none)"
echo "network interfaces: $(ls /sys/class/net | tr '\\n' ' ')"
cd /media/stick
echo "== trust"
./edgekit trust import trust/1.root.json --insecure-developer-root \\
    --fingerprint {fingerprint}
echo "== install"
./edgekit install . --json > /out/receipt.json
echo "== status"
edgekit=/opt/edgekit/current/runtime/edgekit
$edgekit status
echo "== question"
echo "{QUESTION}"
echo "== answer"
$edgekit run {MODEL} {shlex.quote(QUESTION)} | tee /out/answer.txt
{"".join(sandbox_probe_job(unit) for unit in UNITS)}
echo "== audit log"
$edgekit audit verify
$edgekit audit verify --json > /out/audit.json
echo "== power-off"
echo "the sealed host is gone"
"""


def sandbox_probe_job(unit: str) -> str:
    """Bash that runs the probe program inside a copy of a unit's own sandbox."""
    name = f"edgekit-probe-{unit.partition('@')[0]}"
    return f"""
echo "== sandbox"
sed -e 's|^ExecStart=\\([^ ]*\\) .*|ExecStart=\\1 daemon sandbox-probe|' \\
    -e 's/^Type=.*/Type=oneshot/' \\
    -e '/^Restart/d;/^WatchdogSec/d;/^NotifyAccess/d;/^Requires/d;/^After/d;/^PartOf/d' \\
    -e '/^RuntimeDirectory=/d' -e 's|^StateDirectory=.*|StateDirectory={name}|' \\
    /etc/systemd/system/edgekit-{unit}.service > /run/systemd/system/{name}.service
systemctl daemon-reload
systemctl start {name}.service || true
echo "sandbox of edgekit-{unit}: $(journalctl -o cat -u {name}.service | grep -m1 '^{{')" \\
    | tee -a /out/sandbox.txt
rm -rf /var/lib/{name} /var/lib/private/{name}
"""


class GuestStory:
    """Turns the lines of the sealed host's job into steps; `== label` begins one."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._started = self._step_started = time.monotonic()
        self._label = ""
        self._lines: list[str] = []
        self._shown_sandbox = ""
        self.ended_after: dict[str, float] = {}
        """Seconds from power-on to the end of each step, by its label."""

    def __call__(self, line: str) -> None:
        """The next line of the job."""
        if line.startswith("== "):
            self.close()
            self._label = line[3:]
            self._story.under_way(self._label, "")
        elif text := self._readable(line):
            self._lines.append(text)

    def close(self) -> None:
        """Print the step that has ended."""
        now = time.monotonic()
        label = self._label or "boot"
        text = "; ".join(self._lines) or _BOOTED
        self._story.over()
        self._story.line(label, text, now - self._step_started)
        self.ended_after[label] = now - self._started
        self._step_started, self._label, self._lines = now, "", []

    def _readable(self, line: str) -> str:
        if line.startswith(_UNINTERESTING):
            return ""
        if found := DONE.match(line):
            return f"{found['what']} {found['seconds']} s"
        if found := _SANDBOX.match(line):
            text = sandbox_text(json.loads(found["found"]))
            same = text == self._shown_sandbox
            self._shown_sandbox = text
            return f"{found['unit']}: " + (f"{text.partition(' (')[0]}, the same" if same else text)
        return " ".join(line.split())


def sandbox_text(found: dict[str, str]) -> str:
    """A probe's findings in one sentence: how many were refused, and with what error."""
    refused = {name: error for name, error in found.items() if error != "ALLOWED"}
    by_error: dict[str, list[str]] = {}
    for name, error in refused.items():
        by_error.setdefault(error, []).append(name)
    reasons = "; ".join(f"{', '.join(names)}: {error}" for error, names in by_error.items())
    text = f"{len(refused)} of {len(found)} forbidden things refused ({reasons})"
    allowed = ", ".join(sorted(found.keys() - refused.keys()))
    return text + (f" - ALLOWED: {allowed}" if allowed else "")
