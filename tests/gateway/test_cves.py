"""One test for every published weakness of local model servers that this appliance answers.

The list is that of research on servers up to 2026; each number is in its test's name. Tests of the
weights checks stand here too, so that the list is in one place.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest

from edgekit.core.chat_template import check_chat_template
from edgekit.core.digest import Digest
from edgekit.core.engine_unit import unit_values
from edgekit.core.gguf import read_gguf_header
from edgekit.core.names import RelPath
from edgekit.core.weights_policy import check_weights_file, check_weights_name
from edgekit.errors import EdgekitError, FormatError, RefusedContentError, WeightsError
from edgekit.system.resources import read_unit_templates
from tests.gateway.conftest import Site, running_site
from tests.support.fake_engine import FakeEngine
from tests.support.gguf import GgufBuilder, TensorEntry

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
SERVICES = ("edgekit-auditd.service", "edgekit-gateway.service", "edgekit-engine.service")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("cves")
    engine = FakeEngine(str(work / "engine.sock"))
    with running_site(work, engine, engine.socket_path) as ready:
        yield ready


@pytest.fixture
def site(shared: Site) -> Site:
    shared.engine.requests.clear()
    return shared


def refused(site: Site, path: str, body: dict[str, Any], status: int = 400) -> Any:
    answer = site.post(path, body)
    assert answer.status_code == status, answer.text
    assert not site.engine.requests
    return answer.json()["error"]


@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", "sha256-" + "a" * 64, "sha256:" + "A" * 64]
)
def test_cve_2024_37032_digest_that_is_a_path(site: Site, digest: str) -> None:
    with pytest.raises(FormatError):
        Digest.parse(digest)
    for method, path in (("HEAD", "/api/blobs/"), ("POST", "/api/blobs/")):
        assert site.http.request(method, path + digest).status_code in (403, 404)
    refused(site, "/api/pull", {"model": f"evil.example/x@{digest}"}, 403)
    refused(site, "/api/show", {"model": "../../etc/passwd"}, 404)


def test_cve_2024_28224_dns_rebinding(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    for headers in (
        {"Host": f"rebound.evil.example:{port}"},
        {"Origin": "http://rebound.evil.example"},
        {"Origin": "null"},
    ):
        answer = site.http.get("/api/tags", headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert httpx.get(f"{site.url}/api/tags").status_code == 401  # a key even on loopback


@pytest.mark.parametrize("path", ["/api/create", "/api/push"])
def test_cve_2024_39719_39720_39721_39722_files_by_create_and_push(site: Site, path: str) -> None:
    for body in (
        {"model": "x", "path": "/etc/passwd"},
        {"model": "x", "files": {"a": "sha256:00"}},
    ):
        error = refused(site, path, body, 403)
        assert "passwd" not in error


def test_cve_2024_12886_cve_2025_0312_cve_2025_0315_compressed_bombs(site: Site) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    answer = site.http.post("/api/chat", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    refused(site, "/api/create", {"model": "x", "modelfile": "FROM /x.gguf"}, 403)


def test_cve_2025_51471_no_registry_client_sends_a_token(site: Site) -> None:
    refused(site, "/api/pull", {"model": "evil.example/library/x"}, 403)
    clients = {"requests", "urllib3", "httpx", "aiohttp", "huggingface_hub"}
    probe = f"import sys, edgekit.gateway.daemon; print(sorted({clients} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def read_gguf(data: bytes) -> None:
    read_gguf_header(BytesIO(data), len(data), "x.gguf")


@pytest.mark.parametrize("offset", [32, 1 << 20, 2**63, 2**64 - 32])
def test_cve_2026_7482_tensor_beyond_the_file(site: Site, offset: int) -> None:
    entry = TensorEntry("token_embd.weight", (64, 3), 0, offset)
    with pytest.raises(WeightsError):
        read_gguf(GgufBuilder(tensors=[entry], data=bytes(64)).file())
    refused(site, "/api/create", {"model": "x", "from": "demo"}, 403)
    refused(site, "/api/push", {"model": "demo"}, 403)


@pytest.mark.parametrize(
    "shape", [(2**63, 2), (2**32, 2**32), (2**62, 4), (2**33, 2**31, 2**3), (0, 5)]
)
def test_cve_2025_53630_cve_2026_27940_cve_2026_33298_sizes_that_overflow(
    shape: tuple[int, ...],
) -> None:
    entry = TensorEntry("token_embd.weight", shape, 0, 0)
    with pytest.raises(WeightsError):
        read_gguf(GgufBuilder(tensors=[entry], data=bytes(64)).file())


@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 - 1])
def test_cve_2025_49847_vocabulary_that_claims_too_much(count: int) -> None:
    read_gguf(GgufBuilder().file())  # the same without the claim is good
    with pytest.raises(WeightsError):
        read_gguf(GgufBuilder(key_count=count).file())


def test_cve_2024_42478_ghsa_7rxv_5jhh_j6xx_no_rpc_and_no_network_for_engines() -> None:
    unit = read_unit_templates()["edgekit-engine.service"]
    for name, value in unit_values("llama.cpp").items():
        unit = unit.replace(f"@{name}@", value)
    for line in ("PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "IPAddressDeny=any"):
        assert line in unit.splitlines()
    spec = importlib.util.find_spec("edgekit.engines.launchers.llama_cpp_wheel")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123
        assert "rpc" not in file.read().lower()


@pytest.mark.parametrize("value", [-1, -(2**31), 5, "x"])
def test_cve_2026_21869_n_discard(site: Site, value: object) -> None:
    for path in ("/v1/chat/completions", "/api/chat"):
        refused(site, path, {**CHAT, "n_discard": value})
    refused(site, "/v1/completions", {"model": "demo", "prompt": "x", "n_discard": value})
    refused(
        site, "/api/generate", {"model": "demo", "prompt": "x", "options": {"n_discard": value}}
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% import 'os' as os %}{{ os.system('id') }}",
        "{{ lipsum | attr('__globals__') }}",
    ],
)
def test_cve_2024_34359_cve_2026_5760_templates_that_run_code(template: str) -> None:
    with pytest.raises(RefusedContentError):
        check_chat_template(template, "chat_template")


def test_cve_2026_22807_code_beside_weights() -> None:
    for name in ("modeling_x.py", "weights.bin", "model.pkl", "model.pt"):
        with pytest.raises(EdgekitError):
            check_weights_name(RelPath(name))
    config = json.dumps({"auto_map": {"AutoModel": "modeling_x.Model"}}).encode()
    with pytest.raises(RefusedContentError):
        check_weights_file(RelPath("config.json"), config, len(config))


def test_cve_2025_62164_prompt_embeds(site: Site) -> None:
    for path, body in (
        ("/v1/completions", {"model": "demo", "prompt": "x"}),
        ("/v1/chat/completions", CHAT),
    ):
        refused(site, path, {**body, "prompt_embeds": "gASVAA=="})
    refused(site, "/v1/completions", {"model": "demo", "prompt_embeds": ["gASVAA=="]})


@pytest.mark.parametrize(
    "path", ["/v1/invocations", "/invocations", "/v1/files", "/slots", "/props"]
)
def test_cve_2026_22778_unlisted_paths_and_video(site: Site, path: str) -> None:
    assert httpx.post(site.url + path, json=CHAT).status_code == 401
    refused(site, path, CHAT, 404)
    part = {"type": "video_url", "video_url": {"url": "https://evil.example/x.mp4"}}
    error = refused(
        site, "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [part]}]}
    )
    assert "0x" not in error["message"]


@pytest.mark.parametrize("unit", SERVICES)
def test_cve_2025_32444_29783_47277_30165_no_port_on_any_interface(unit: str) -> None:
    lines = read_unit_templates()[unit].splitlines()
    assert {"PrivateNetwork=yes", "IPAddressDeny=any"} <= set(lines)


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"a": "{{x}}"}},
        {"chat_template": "{{ x }}"},
        {"n": 10_000_000},
        {"best_of": 10_000_000},
        {"tools": [{"type": "function", "function": {"name": "f"}}] * 129},
        {"logit_bias": {str(n): 1 for n in range(10_000)}},
        {"response_format": {"type": "json_object", "schema": {"pattern": "(" * 70_000}}},
        {"stop": ["x"] * 1000},
        {"max_tokens": 10**9},
    ],
)
def test_cve_2025_62426_cve_2026_22773_requests_that_exhaust(
    site: Site, fields: dict[str, Any]
) -> None:
    refused(site, "/v1/chat/completions", {**CHAT, **fields})


def test_cve_2025_48956_endless_header(site: Site) -> None:
    port = int(site.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(10)
        sent = 0
        try:
            sock.sendall(b"GET /v1/models HTTP/1.1\r\nX-Request-Id: ")
            for _ in range(100):
                sock.sendall(b"a" * 65_536)
                sent += 65_536
        except OSError:
            pass
    assert sent < 100 * 65_536
    assert site.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "https://x/y.png", "file:///etc/passwd", "ftp://x", "//x/y"],
)
def test_ssrf_media_by_address(site: Site, url: str) -> None:
    for part in (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
    ):
        refused(
            site,
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": [part]}]},
        )
    refused(site, "/api/generate", {"model": "demo", "prompt": "x", "images": [url]})


def test_exposed_servers_answer_strangers_with_401(site: Site) -> None:
    for path in (
        "/api/tags",
        "/v1/models",
        "/api/ps",
        "/metrics",
        "/edgekit/state",
        "/openapi.json",
    ):
        assert httpx.get(site.url + path).status_code == 401
