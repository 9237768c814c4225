"""Refusals as the clients of each surface expect to read them.

`/v1` speaks OpenAI's error object, `/v1/messages` Anthropic's, everything else Ollama's one text.
An `ApiError` is an answer, not a failure of edgekit: it carries an HTTP status instead of an exit
code.
"""

from __future__ import annotations

import json
from enum import Enum

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer other than success. `param` names the field at fault, `retry_after` is seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """OpenAI's `type` of this error."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return _TYPES.get(self.status, default)


def bad_field(param: str, message: str) -> ApiError:
    """The 400 for a field the policy refuses."""
    return ApiError(400, "invalid_value", f"{param}: {message}", param=param)


def model_not_found(name: str) -> ApiError:
    """The 404 for a model this appliance does not serve."""
    return ApiError(404, "model_not_found", f"model {name[:100]!r} not found", param="model")


def audit_unavailable() -> ApiError:
    """The 503 when nothing can be recorded, and so nothing is answered."""
    return ApiError(
        503,
        "audit_unavailable",
        "the audit log is unavailable, so no request is served",
        retry_after=5,
    )


def engine_unavailable() -> ApiError:
    """The 503 when the engine is down or starting."""
    return ApiError(
        503, "engine_unavailable", "the engine is not running or still starting", retry_after=10
    )


class Surface(Enum):
    """Whose protocol a path speaks."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    ANTHROPIC = "anthropic"


def surface_of(path: str) -> Surface:
    """The protocol whose clients call this path (vLLM's own calls speak OpenAI's)."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Surface.ANTHROPIC
    if path == "/v1" or path.startswith("/v1/") or path in ("/tokenize", "/detokenize"):
        return Surface.OPENAI
    return Surface.OLLAMA


def render_problem(error: ApiError, surface: Surface) -> bytes:
    """The error's JSON body, in the shape of its surface."""
    return json.dumps(_problem_table(error, surface)).encode()


def _problem_table(error: ApiError, surface: Surface) -> dict[str, object]:
    if surface is Surface.OLLAMA:
        return {"error": error.message}
    if surface is Surface.ANTHROPIC:
        default = "api_error" if error.status >= 500 else "invalid_request_error"
        kind = _ANTHROPIC_TYPES.get(error.status, default)
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
