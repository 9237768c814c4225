"""The generating endpoints: how each request is read and how its answer is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.gateway.body import Body
from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.surfaces import (
    anthropic_requests,
    embedding_requests,
    ollama_requests,
    openai_requests,
    rerank_requests,
    responses_requests,
    token_requests,
)
from edgekit.gateway.surfaces.anthropic_answers import AnthropicTranslator
from edgekit.gateway.surfaces.embedding_answers import EmbeddingTranslator
from edgekit.gateway.surfaces.ollama_answers import OllamaTranslator
from edgekit.gateway.surfaces.ollama_requests import LoadRequest
from edgekit.gateway.surfaces.openai_answers import OpenAiTranslator
from edgekit.gateway.surfaces.rerank_answers import RerankTranslator
from edgekit.gateway.surfaces.responses_answers import ResponsesTranslator
from edgekit.gateway.surfaces.token_answers import TokenTranslator
from edgekit.gateway.surfaces.translator import Translator


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One POST path: its body to a job, its job's outcome to bytes, and who may ask (scope).

    `capability` is what a model must be able to do; nothing in particular when it is empty.
    """

    title: str
    parse: Callable[[Body, Appliance], Job | LoadRequest]
    translator: Callable[[Job, Outcome], Translator]
    scope: str = "chat"
    capability: str = "completion"

    def serves(self, model: ServedModel) -> bool:
        """Whether this model can be asked here."""
        return not self.capability or self.capability in model.capabilities


ENDPOINTS = {
    "/v1/chat/completions": Endpoint("Chat (OpenAI)", openai_requests.parse_chat, OpenAiTranslator),
    "/v1/completions": Endpoint(
        "Continue a text (OpenAI)", openai_requests.parse_completion, OpenAiTranslator
    ),
    "/v1/responses": Endpoint(
        "Responses, stateless (OpenAI)", responses_requests.parse_responses, ResponsesTranslator
    ),
    "/v1/responses/input_tokens": Endpoint(
        "Count a conversation's tokens (OpenAI)", responses_requests.parse_count, TokenTranslator
    ),
    "/v1/messages": Endpoint(
        "Messages (Anthropic)", anthropic_requests.parse_messages, AnthropicTranslator
    ),
    "/v1/messages/count_tokens": Endpoint(
        "Count a conversation's tokens (Anthropic)", anthropic_requests.parse_count, TokenTranslator
    ),
    "/v1/embeddings": Endpoint(
        "Embeddings (OpenAI)",
        embedding_requests.parse_openai,
        EmbeddingTranslator,
        "embed",
        "embedding",
    ),
    "/v1/rerank": Endpoint(
        "Rank documents (Jina, vLLM)",
        rerank_requests.parse_rerank,
        RerankTranslator,
        "embed",
        "rerank",
    ),
    "/tokenize": Endpoint(
        "A text's tokens (vLLM)", token_requests.parse_tokenize, TokenTranslator, capability=""
    ),
    "/detokenize": Endpoint(
        "Tokens' text (vLLM)", token_requests.parse_detokenize, TokenTranslator, capability=""
    ),
    "/api/chat": Endpoint("Chat (Ollama)", ollama_requests.parse_chat, OllamaTranslator),
    "/api/generate": Endpoint(
        "Continue a text (Ollama)", ollama_requests.parse_generate, OllamaTranslator
    ),
    "/api/embed": Endpoint(
        "Embeddings (Ollama)",
        embedding_requests.parse_ollama,
        EmbeddingTranslator,
        "embed",
        "embedding",
    ),
    "/api/embeddings": Endpoint(
        "One embedding (Ollama's older call)",
        embedding_requests.parse_ollama_legacy,
        EmbeddingTranslator,
        "embed",
        "embedding",
    ),
}
