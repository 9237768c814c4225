"""The generating endpoints: how each request is read and how its answer is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.surfaces import (
    anthropic_requests,
    embedding_requests,
    ollama_requests,
    openai_requests,
    responses_requests,
)
from edgekit.gateway.surfaces.anthropic_answers import AnthropicTranslator
from edgekit.gateway.surfaces.embedding_answers import EmbeddingTranslator
from edgekit.gateway.surfaces.ollama_answers import OllamaTranslator
from edgekit.gateway.surfaces.ollama_requests import LoadRequest
from edgekit.gateway.surfaces.openai_answers import OpenAiTranslator
from edgekit.gateway.surfaces.responses_answers import ResponsesTranslator
from edgekit.gateway.surfaces.translator import Translator


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One POST path: its body to a job, and its job's outcome to bytes."""

    parse: Callable[[Body, Appliance], Job | LoadRequest]
    translator: Callable[[Job, Outcome], Translator]


ENDPOINTS = {
    "/v1/chat/completions": Endpoint(openai_requests.parse_chat, OpenAiTranslator),
    "/v1/completions": Endpoint(openai_requests.parse_completion, OpenAiTranslator),
    "/v1/responses": Endpoint(responses_requests.parse_responses, ResponsesTranslator),
    "/v1/messages": Endpoint(anthropic_requests.parse_messages, AnthropicTranslator),
    "/v1/embeddings": Endpoint(embedding_requests.parse_openai, EmbeddingTranslator),
    "/api/embed": Endpoint(embedding_requests.parse_ollama, EmbeddingTranslator),
    "/api/embeddings": Endpoint(embedding_requests.parse_ollama_legacy, EmbeddingTranslator),
    "/api/chat": Endpoint(ollama_requests.parse_chat, OllamaTranslator),
    "/api/generate": Endpoint(ollama_requests.parse_generate, OllamaTranslator),
}
