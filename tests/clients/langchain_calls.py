"""LangChain against a gateway: `langchain_calls.py URL KEY`; prints what came back as JSON.

Runs in the environment of `requirements/clients.txt`.
"""

from __future__ import annotations

import json
import sys

from langchain_core.exceptions import ContextOverflowError
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

URL, KEY = sys.argv[1:3]
HEADERS = {"headers": {"Authorization": f"Bearer {KEY}"}}
QUESTION = "What is the capital of France?"
TEXTS = ["which command builds a bundle", "which command builds a set", "Paris is in France"]


def near(vectors: list[list[float]]) -> bool:
    """Whether the first two are nearer to each other than the first and the last."""
    first, second, third = vectors

    def dot(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    return dot(first, second) > dot(first, third)


def openai() -> dict[str, object]:
    chat = ChatOpenAI(
        base_url=f"{URL}/v1", api_key=KEY, model="demo", temperature=0, max_retries=0
    )
    embeddings = OpenAIEmbeddings(
        base_url=f"{URL}/v1", api_key=KEY, model="demo-embed", check_embedding_ctx_length=False
    )
    whole = chat.invoke(QUESTION)
    try:
        chat.invoke("word " * 3000)
        overflow = ""
    except ContextOverflowError as error:
        overflow = str(error.code)  # type: ignore[attr-defined]
    responses = chat.model_copy(update={"use_responses_api": True})
    return {
        "whole": whole.content,
        "tokens": whole.usage_metadata["total_tokens"],
        "stream": "".join(chunk.content for chunk in chat.stream(QUESTION)),
        "responses": responses.invoke(QUESTION).text,
        "json": json.loads(chat.bind(response_format={"type": "json_object"}).invoke("x").content)
        is not None,
        "overflow": overflow,
        "near": near(embeddings.embed_documents(TEXTS)),
    }


def ollama() -> dict[str, object]:
    fields = {"base_url": URL, "temperature": 0, "client_kwargs": HEADERS, "num_predict": 60}
    chat = ChatOllama(model="demo", **fields)
    embeddings = OllamaEmbeddings(model="demo-embed", base_url=URL, client_kwargs=HEADERS)
    whole = chat.invoke(QUESTION)
    return {
        "whole": whole.content,
        "tokens": whole.usage_metadata["total_tokens"],
        "stream": "".join(chunk.content for chunk in chat.stream(QUESTION)),
        "generate": OllamaLLM(model="demo", **fields).invoke(QUESTION),
        "near": near(embeddings.embed_documents(TEXTS)),
    }


print(json.dumps({"openai": openai(), "ollama": ollama()}))
