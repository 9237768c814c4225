"""What the gateway keeps of texts, by policy; and that it does not serve what it cannot keep."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from edgekit.core.audit_query import Query
from edgekit.core.audit_texts import open_text
from edgekit.core.text_policy import TextMode, TextPolicy
from edgekit.errors import ConfigError
from edgekit.gateway.texts import TextKeeper
from edgekit.operations.audit import tail_audit, verify_audit
from edgekit.operations.audit_search import search_audit, text_digests
from edgekit.system.audit_texts import TextStore
from tests.gateway.conftest import Site, running_site
from tests.support.fake_engine import FakeEngine

CANARY = "the canary sings at 0417"
OPENAI = "/v1/chat/completions"
KEY = MLKEM1024PrivateKey.generate()


def chat(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": CANARY}]
    return {"model": "demo", "messages": messages, "max_tokens": 5, **fields}


@pytest.fixture
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site with the mode that the test's parameter names for everything."""
    policy = TextPolicy(request.param)
    keeper = TextKeeper(policy, KEY.public_key(), TextStore(tmp_path / "texts"))
    engine = FakeEngine(str(tmp_path / "engine.sock"))
    with running_site(tmp_path, engine, engine.socket_path, keeper=keeper) as ready:
        yield ready


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def texts_of(site: Site, key: MLKEM1024PrivateKey | None) -> list[bytes]:
    """The kept prompt and answer of the newest request, opened."""
    store, found = TextStore(site.work / "texts"), []
    request, response = site.records()[-2:]
    for record, part in ((request, "prompt"), (response, "output")):
        data = store.read(record["request_id"], part)
        assert data is not None
        found.append(open_text(data, record[f"{part}_file"], key))
    return found


@pytest.mark.parametrize("kept", [TextMode.SEALED], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
def test_sealed_texts_open_with_the_auditors_key_and_nowhere_else(kept: Site, stream: bool) -> None:
    answer = kept.post(OPENAI, chat(stream=stream))
    assert answer.status_code == 200
    everything = bytes_below(kept.work)
    assert CANARY.encode() not in everything
    assert b"be brief" not in everything
    prompt, output = texts_of(kept, KEY)
    assert CANARY.encode() in prompt
    assert output.decode() == "edgekit answers in words"
    assert {r["text_mode"] for r in kept.records()} == {"sealed"}


@pytest.mark.parametrize("kept", [TextMode.SEALED], indirect=True)
def test_erased_texts_leave_the_chain_intact(kept: Site) -> None:
    kept.post(OPENAI, chat())
    store = TextStore(kept.work / "texts")
    store.erase(list(store.files()))
    assert list(store.files()) == []
    summary = verify_audit(kept.work / "audit")
    assert (summary.requests, summary.responses, summary.orphans) == (1, 1, 0)


@pytest.mark.parametrize("kept", [TextMode.FULL], indirect=True)
def test_full_texts_are_in_the_clear_but_never_in_the_log(kept: Site) -> None:
    kept.post(OPENAI, chat())
    assert CANARY.encode() in texts_of(kept, None)[0]
    assert CANARY.encode() not in bytes_below(kept.work / "audit")


@pytest.mark.parametrize("kept", [TextMode.NONE], indirect=True)
def test_none_leaves_counts_only(kept: Site) -> None:
    kept.post(OPENAI, chat())
    request, response = kept.records()
    assert not [name for r in (request, response) for name in r if "hmac" in name]
    assert response["tokens_out"] == 5
    assert not (kept.work / "texts").exists()


def test_default_is_digests_and_a_known_text_is_found(site: Site) -> None:
    site.post(OPENAI, chat())
    site.post("/v1/completions", {"model": "demo", "prompt": CANARY, "max_tokens": 2})
    site.post("/v1/completions", {"model": "demo", "prompt": "other", "max_tokens": 5})
    assert {r["text_mode"] for r in site.records()} == {"hash"}

    def found(text: str) -> int:
        query = Query(digests=text_digests(text.encode(), b"k" * 48))
        return len(search_audit(site.work / "audit", query, 10).entries)

    assert found(CANARY) == 2
    assert found("edgekit answers in words") == 2
    assert found("the canary sings at 0418") == 0


def test_rules_for_keys_and_models(site: Site, tmp_path: Path) -> None:
    key = site.token.split("_")[1]
    policy = TextPolicy(TextMode.NONE, {key: TextMode.SEALED}, {"demo": TextMode.HASH})
    assert policy.mode(key, "demo") is TextMode.HASH
    assert policy.mode("00000000", "demo") is TextMode.HASH
    assert policy.mode(key, "other") is TextMode.SEALED


@pytest.mark.parametrize("kept", [TextMode.SEALED], indirect=True)
def test_policy_is_recorded_before_the_first_request_and_once(kept: Site) -> None:
    for _ in range(3):
        kept.post(OPENAI, chat())
    records = tail_audit(kept.work / "audit", 50)
    policies = [r for r in records if r["type"] == "text_policy"]
    assert [p["default"] for p in policies] == ["sealed"]
    assert len(policies[0]["recipient"]) == 32
    assert records.index(policies[0]) < records.index(kept.records()[0])


@pytest.mark.parametrize("kept", [TextMode.SEALED], indirect=True)
def test_text_that_cannot_be_kept_is_503_and_the_engine_is_not_asked(kept: Site) -> None:
    kept.post(OPENAI, chat())
    shutil.rmtree(kept.work / "texts")
    (kept.work / "texts").write_text("in the way")
    answer = kept.post(OPENAI, chat())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "audit_unavailable"
    assert len(kept.engine.requests) == 1


@pytest.mark.parametrize("kept", [TextMode.SEALED], indirect=True)
def test_answer_that_cannot_be_kept_is_withheld(kept: Site) -> None:
    kept.engine.delay_s = 0.2
    with kept.http.stream("POST", OPENAI, json=chat(stream=True)) as response:
        pieces = response.iter_text()
        text = next(pieces)
        shutil.rmtree(kept.work / "texts")
        (kept.work / "texts").write_text("in the way")
        text += "".join(pieces)
    assert "[DONE]" not in text
    assert "audit" in text


def test_policy_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ConfigError, match="auditor"):
        TextKeeper(TextPolicy(keys={"k": TextMode.SEALED}))
    with pytest.raises(ConfigError, match="folder"):
        TextKeeper(TextPolicy(TextMode.FULL))


def test_digest_of_the_side_file_is_what_is_recorded(tmp_path: Path) -> None:
    keeper = TextKeeper(TextPolicy(TextMode.FULL), None, TextStore(tmp_path))
    digest = asyncio.run(keeper.keep(TextMode.FULL, "req-1", "prompt", b"text"))
    (path,) = TextStore(tmp_path).files()
    assert digest == hashlib.sha384(path.read_bytes()).hexdigest()
