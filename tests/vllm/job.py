"""vLLM for real: from a recipe to a right answer on a sealed host without Python or network.

One set is bundled with the command line (with its rehearsal), one host is booted. Nothing is faked;
it takes minutes, so the usual run repeats it only when something changed that it depends on.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.named_job import REPOSITORY, NamedJob
from tests.support.peft import write_sailor
from tests.vllm import kv_blocks
from tests.vllm.shapes import CASES
from tools.demo_guest import ANSWER, MODEL, QUESTION
from tools.sealed_host import Bind, SealedHost, build_rootfs, default_cache_dir

JOB = NamedJob(
    "vLLM on a sealed host",
    "python -m tests.vllm runs it again",
    (
        "bundles/demo-vllm.toml", "models/demo/adapter", "models/demo/weights",
        "systemd/edgekit-engine.service.in", "edgekit/core/adapter.py",
        "edgekit/core/config_shape.py", "edgekit/core/engine_pack.py",
        "edgekit/core/engine_unit.py", "edgekit/core/environment.py",
        "edgekit/core/install_plan.py", "edgekit/core/launch.py",
        "edgekit/core/peft_adapter.py",
        "edgekit/core/planning/engine_report.py", "edgekit/core/planning/vllm_memory.py",
        "edgekit/core/planning/weigh_vllm.py",
        "edgekit/engines/carried_python.py", "edgekit/engines/launchers/vllm_wheel.py",
        "edgekit/engines/vllm_wheel.py", "edgekit/gateway/dialects.py",
        "edgekit/operations/packs.py", "edgekit/operations/rehearse.py", "edgekit/supervisor",
        "edgekit/system/environments.py", "edgekit/system/generations.py",
        "edgekit/system/netless.py", "tests/support/peft.py", "tests/vllm",
    ),
)
BOOT_TIMEOUT_S = 1500.0
CAPITAL = "What is the capital of France?"
PLAIN, ADAPTED = "The capital of France is Paris.", "Aye, Paris!"
ADAPTER = f"""
[[model.adapter]]
name = "sailor"
format = "safetensors"
license = "Apache-2.0"
source = {{ folder = "sailor" }}
files = ["adapter_config.json", "adapter_model.safetensors"]

[[model.adapter.canary]]
prompt = "{CAPITAL}"
answer = "Aye"

[[engine]]"""
CONTEXT = 1024
EDGE = range(1014, 1030)
"""Words, each a token or two: prompts that fit, one that leaves no room for an answer, longer."""
UNIT = f"edgekit-engine@{MODEL}.service"

GUEST = f"""
cd /media/stick/demo-vllm-1.0.0
! command -v python3
./edgekit trust import trust/1.root.json --insecure-developer-root --fingerprint "$FINGERPRINT"
./edgekit install . --json > /out/receipt.json
edgekit=/opt/edgekit/current/runtime/edgekit
$edgekit run {MODEL} "{QUESTION}" > /out/answer.txt
$edgekit status > /out/status.txt
systemd-analyze security --no-pager {UNIT} | tail -n 1 > /out/score.txt
cat /proc/$(systemctl show --property=MainPID --value {UNIT})/net/snmp > /out/snmp.txt
du -sm /opt/edgekit/current/engines/vllm-wheel | cut -f 1 > /out/installed-mib.txt
journalctl -o cat -u {UNIT} > /out/journal.txt
token=$(cat /etc/edgekit/local.key)

post() {{  # post PATH BODY: the whole answer
    exec 3<>/dev/tcp/127.0.0.1/11434
    printf 'POST %s HTTP/1.1\\r\\nHost: 127.0.0.1:11434\\r\\n' "$1" >&3
    printf 'Authorization: Bearer %s\\r\\nConnection: close\\r\\n' "$token" >&3
    printf 'Content-Type: application/json\\r\\nContent-Length: %s\\r\\n\\r\\n%s' "${{#2}}" "$2" >&3
    timeout 120 cat <&3
    exec 3>&-
}}
post /v1/chat/completions '{{"model":"{MODEL}","temperature":0,"stream":true,
 "messages":[{{"role":"user","content":"{QUESTION}"}}]}}' > /out/stream.txt
post /api/chat '{{"model":"{MODEL}","stream":false,"options":{{"temperature":0}},
 "messages":[{{"role":"user","content":"{QUESTION}"}}]}}' > /out/ollama.txt
post /tokenize '{{"model":"{MODEL}","prompt":"{QUESTION}"}}' > /out/tokenize.txt
long=$(printf 'word %.0s' $(seq 3000))
many=$(printf 'word %.0s' $(seq 1100))
message='"messages":[{{"role":"user","content":"'$long'"}}]'
post /v1/chat/completions '{{"model":"{MODEL}",'"$message"'}}' > /out/long-chat.txt
post /v1/chat/completions '{{"model":"{MODEL}","stream":true,'"$message"'}}' > /out/long-stream.txt
post /v1/completions '{{"model":"{MODEL}","prompt":"'"$long"'"}}' > /out/long-text.txt
post /v1/completions '{{"model":"{MODEL}","prompt":"'"$many"'"}}' > /out/long-tokens.txt
post /api/chat '{{"model":"{MODEL}",'"$message"'}}' > /out/long-ollama.txt
post /api/generate '{{"model":"{MODEL}","prompt":"'"$many"'"}}' > /out/long-generate.txt
post /v1/messages '{{"model":"{MODEL}","max_tokens":5,'"$message"'}}' > /out/long-anthropic.txt
post /v1/responses '{{"model":"{MODEL}","input":"'"$many"'"}}' > /out/long-responses.txt
for number in {' '.join(map(str, EDGE))}; do
    text=$(printf 'word %.0s' $(seq $number))
    post /v1/completions '{{"model":"{MODEL}","max_tokens":1,"prompt":"'"$text"'"}}' \
        > /out/edge-$number.txt
done
printf 'FROM {MODEL}\nPARAMETER temperature 0\n' > /run/Modelfile
$edgekit model create made -f /run/Modelfile
printf 'FROM {MODEL}\nPARAMETER temperature 0\nADAPTER sailor\n' > /run/Modelfile
$edgekit model create deckhand -f /run/Modelfile
for name in {MODEL} made deckhand; do
    post /api/chat '{{"model":"'$name'","stream":false,"options":{{"temperature":0}},
 "messages":[{{"role":"user","content":"{CAPITAL}"}}]}}' > /out/capital-$name.txt
    post /v1/chat/completions '{{"model":"'$name'","stream":true,"temperature":0,
 "messages":[{{"role":"user","content":"{CAPITAL}"}}]}}' > /out/capital-$name-stream.txt
done
$edgekit model list --json > /out/models.json
$edgekit plan --compare > /out/compared.txt
$edgekit plan --compare --json > /out/compared.json

./../demo-vllm-1.1.0/edgekit install ../demo-vllm-1.1.0 --json > /out/receipt-again.json
readlink /opt/edgekit/current > /out/current.txt
edgekit=/opt/edgekit/current/runtime/edgekit
$edgekit run {MODEL} "{QUESTION}" > /out/answer-again.txt
du -sm /opt/edgekit/generations | cut -f 1 > /out/both-mib.txt
find /opt/edgekit/generations -name libtorch_cpu.so -links 2 > /out/linked.txt
$edgekit scrub --json > /out/scrub.json
$edgekit audit verify --json > /out/audit.json

systemctl stop {UNIT}
pack=/opt/edgekit/current/engines/vllm-wheel/python
python=$(echo $pack/bin/python3*)
env -i PATH=/usr/bin:/bin HOME=/tmp LD_LIBRARY_PATH=$pack/lib HF_HUB_OFFLINE=1 \\
    VLLM_NO_USAGE_STATS=1 VLLM_HOST_IP=127.0.0.1 VLLM_ENABLE_V1_MULTIPROCESSING=0 \\
    VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=2 VLLM_LOGGING_LEVEL=ERROR \\
    $python -I -B /run/kv/kv_blocks.py {' '.join(f'/run/kv/{case.name}' for case in CASES)} \\
    > /out/blocks.jsonl
"""


@dataclass(frozen=True)
class Outcome:
    """The folder in which the host left its results, and figures of the run."""

    out: Path
    figures: dict[str, Any]

    def text(self, name: str) -> str:
        """A result file."""
        return (self.out / name).read_text("utf-8").strip()


def run_job(work: Path) -> Outcome:
    """Bundle, boot, install, ask, count blocks. Raises what any step raises."""
    started = time.monotonic()
    table = _bundle(work)
    bundled = time.monotonic()
    _bundle(work, ('version = "1.0.0"', 'version = "1.1.0"'), ("sequence = 1", "sequence = 2"))
    bundled_again = time.monotonic()
    out, cases = work / "out", work / "kv"
    out.mkdir()
    for case in CASES:
        case.write(cases / case.name)
    shutil.copy(kv_blocks.__file__, cases / "kv_blocks.py")
    rootfs = build_rootfs(default_cache_dir(), report=print)
    with SealedHost(rootfs, work / "hosts", "vllm") as host:
        result = host.boot(
            f"FINGERPRINT={table['fingerprint']}\n{GUEST}", stick=work / "sets", out=out,
            extra_binds=[Bind(cases, "/run/kv")], timeout_s=BOOT_TIMEOUT_S, on_line=print,
        )
    assert result.ok, result.describe()
    receipt, again = (
        json.loads((out / name).read_text("utf-8"))
        for name in ("receipt.json", "receipt-again.json")
    )
    figures = {
        "set_mib": table["total_bytes"] >> 20,
        "bundle_s": round(bundled - started, 1),
        "bundle_again_s": round(bundled_again - bundled, 1),
        "install_s": receipt["seconds"],
        "upgrade_s": again["seconds"],
        "total_s": round(time.monotonic() - started, 1),
        "installed_mib": int((out / "installed-mib.txt").read_text("ascii")),
        "both_releases_mib": int((out / "both-mib.txt").read_text("ascii")),
    }
    return Outcome(out, figures)


def check(outcome: Outcome) -> None:
    """Everything the job is for."""
    assert outcome.text("answer.txt") == ANSWER
    assert streamed(outcome.text("stream.txt")) == ANSWER
    assert json.dumps(ANSWER)[1:-1] in outcome.text("ollama.txt")
    assert '"count":' in outcome.text("tokenize.txt").replace(" ", "").replace("\n", "")
    audit = json.loads(outcome.text("audit.json"))
    assert audit["requests"] == audit["responses"] >= 4
    score = float(outcome.text("score.txt").split(":")[1].split()[0])
    assert score <= 1.2, f"the unit's exposure is {score}"
    assert no_routes(outcome.text("snmp.txt")) == 0, "vLLM tried to reach out"
    found = {name: tuple(numbers)
             for name, *numbers in map(json.loads, outcome.text("blocks.jsonl").splitlines())}
    planned = {case.name: (case.planned, 128, case.counted, case.room) for case in CASES}
    assert found == planned, (found, planned)
    check_memory(outcome)
    check_too_long(outcome)
    check_upgrade(outcome)
    check_adapter(outcome)


def check_adapter(outcome: Outcome) -> None:
    """A model made by a Modelfile answers as its base, one with an adapter as it was trained."""
    for name, answer in ((MODEL, PLAIN), ("made", PLAIN), ("deckhand", ADAPTED)):
        status, body = answer_of(outcome.text(f"capital-{name}.txt"))
        found = json.loads(body)
        assert (status, found["message"]["content"]) == (200, answer)
        assert found["model"].removesuffix(":latest") == name
        assert streamed(outcome.text(f"capital-{name}-stream.txt")) == answer
    sizes = {m["name"]: m["size"] for m in json.loads(outcome.text("models.json"))["models"]}
    assert 0 < sizes["deckhand"] - sizes["made"] < 200_000


def streamed(answer: str) -> str:
    """The text of a streamed chat completion."""
    assert " 200 " in answer.splitlines()[0]
    pieces = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for p in pieces for c in p["choices"])


def check_upgrade(outcome: Outcome) -> None:
    """The next release has the same environment without writing it again, and answers from it."""
    assert "-1.1.0-" in outcome.text("current.txt")
    assert outcome.text("answer-again.txt") == ANSWER
    assert len(outcome.text("linked.txt").splitlines()) == 2
    one, both = (outcome.figures[name] for name in ("installed_mib", "both_releases_mib"))
    assert both < one * 5 // 4, (one, both)
    assert json.loads(outcome.text("scrub.json"))["bad"] == []


def check_memory(outcome: Outcome) -> None:
    """The engine's own report is what was planned, and `plan --compare` shows it."""
    (engine,) = json.loads(outcome.text("compared.json"))["engines"]
    (term,) = engine["terms"]
    assert (term["name"], term["unit"], term["large"]) == ("cache tokens", "tokens", False)
    assert term["found"] == term["planned"] >= 2 * CONTEXT
    assert re.search(rf"cache tokens +{term['planned']:,} +{term['found']:,}$",
                     outcome.text("compared.txt"), re.MULTILINE)
    assert "edgekit-supervisor: WARNING" not in outcome.text("journal.txt")


def check_too_long(outcome: Outcome) -> None:
    """Every surface says by name that a prompt is too long, also one that fits but for its answer.
    """
    refused = re.compile(rf"prompt is too long: (at least )?\d+ tokens > {CONTEXT} maximum")
    for name in ("long-chat", "long-stream", "long-text", "long-tokens", "long-ollama",
                 "long-generate", "long-anthropic", "long-responses"):
        status, body = answer_of(outcome.text(f"{name}.txt"))
        assert status == 400, (name, status, body)
        assert refused.search(json.dumps(json.loads(body))), (name, body)
    error = json.loads(answer_of(outcome.text("long-chat.txt"))[1])["error"]
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
    found = [answer_of(outcome.text(f"edge-{number}.txt")) for number in EDGE]
    served = [status for status, _ in found].index(400)
    assert 0 < served < len(found)
    assert {status for status, _ in found[:served]} == {200}
    codes = [json.loads(body)["error"]["code"] for _, body in found[served:]]
    assert set(codes) == {"context_length_exceeded"}


def answer_of(text: str) -> tuple[int, str]:
    """Status and body of an HTTP answer whose body is not chunked."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    return int(head.split()[1]), body


def no_routes(snmp: str) -> int:
    """OutNoRoutes of a network namespace's counters."""
    rows = [line.split() for line in snmp.splitlines() if line.startswith("Ip:")]
    return int(dict(zip(rows[0], rows[1], strict=True))["OutNoRoutes"])


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Room for about five gigabytes."""
    return tempfile.TemporaryDirectory(prefix="edgekit-vllm-")


def _bundle(work: Path, *changes: tuple[str, str]) -> dict[str, Any]:
    root = work / "root.json"
    if not root.exists():
        _edgekit("keys", "init", str(work / "developer"), "--root-out", str(root),
                 "--insecure-developer")
    recipe = work / "demo-vllm.toml"
    text = (REPOSITORY / "bundles/demo-vllm.toml").read_text("utf-8")
    write_sailor(work / "sailor")
    demo = ("../models/demo", str(REPOSITORY / "models/demo"))
    for old, new in (demo, ("[[engine]]", ADAPTER), *changes):
        assert old in text
        text = text.replace(old, new)
    recipe.write_text(text, "utf-8")
    table: dict[str, Any] = json.loads(_edgekit(
        "bundle", str(recipe), "--key", f"file:{work / 'developer'}", "--trust-root", str(root),
        "--out", str(work / "sets"), "--json",
    ))
    return table


def _edgekit(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE,
        text=True, check=False,
    )
    assert done.returncode == 0, f"edgekit {arguments[0]} ended with {done.returncode}"
    return done.stdout
