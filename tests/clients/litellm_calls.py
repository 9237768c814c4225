"""LiteLLM's library against a gateway: `litellm_calls.py URL KEY`; prints what came back as JSON.

Runs in the environment of `requirements/clients.txt`.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else its import asks a server for prices

import litellm

litellm.suppress_debug_info = True  # it prints advice where the results belong

URL, KEY = sys.argv[1:3]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LONG = [{"role": "user", "content": "word " * 3000}]
WAYS = {
    "openai": {"model": "openai/demo", "api_base": f"{URL}/v1", "api_key": KEY},
    "ollama": {
        "model": "ollama_chat/demo",
        "api_base": URL,
        "api_key": KEY,
    },
    "anthropic": {"model": "anthropic/demo", "api_base": URL, "api_key": KEY},
}


def chat(way: dict[str, str]) -> dict[str, object]:
    fields = {**way, "temperature": 0, "max_tokens": 60, "num_retries": 0}
    whole = litellm.completion(messages=QUESTION, **fields)
    parts = litellm.completion(messages=QUESTION, stream=True, **fields)
    return {
        "whole": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "counted": whole.usage.total_tokens > whole.usage.completion_tokens > 0,
        "stream": "".join(part.choices[0].delta.content or "" for part in parts),
    }


def refusal(**fields: object) -> str:
    try:
        litellm.completion(**{**WAYS["openai"], "messages": QUESTION, "num_retries": 0, **fields})
    except Exception as error:  # noqa: BLE001  its name is the answer
        return type(error).__name__
    return ""


vectors = litellm.embedding(
    model="openai/demo-embed", input=["a", "b"], api_base=f"{URL}/v1", api_key=KEY
)
print(
    json.dumps(
        {
            **{name: chat(way) for name, way in WAYS.items()},
            "embeddings": len(vectors.data),
            "too long": refusal(messages=LONG),
            "no model": refusal(model="openai/other"),
            "no key": refusal(api_key="ek_wrong"),
        }
    )
)
