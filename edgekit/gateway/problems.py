"""Refusals as the clients of each surface expect to read them.

`/v1` speaks OpenAI's error object, everything else Ollama's one text. An `ApiError` is an answer,
not a failure of edgekit: it carries an HTTP status instead of an exit code.
"""

from __future__ import annotations

import json

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


def is_openai(path: str) -> bool:
    """True for paths whose clients read OpenAI's error object."""
    return path == "/v1" or path.startswith("/v1/")


def render_problem(error: ApiError, *, openai: bool) -> bytes:
    """The error's JSON body, in the shape of its surface."""
    if not openai:
        return json.dumps({"error": error.message}).encode()
    body = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return json.dumps({"error": body}).encode()
