"""The routes that are asked rarely: model lists, versions, health. FastAPI serves them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from edgekit import __version__
from edgekit.core.appliance import Appliance, EngineSettings, ServedModel
from edgekit.core.modelfile import Modelfile, parameter_lines, render_modelfile
from edgekit.errors import EngineError
from edgekit.gateway.body import parse_body
from edgekit.gateway.console import load_console
from edgekit.gateway.engine_client import EngineClient
from edgekit.gateway.http import header_table, read_body
from edgekit.gateway.job import find_model
from edgekit.gateway.metrics import CONTENT_TYPE, Metrics
from edgekit.gateway.openapi import openapi_document
from edgekit.gateway.problems import ApiError, render_problem, surface_of
from edgekit.gateway.residence import Residence
from edgekit.gateway.state import State
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from edgekit.gateway.surfaces.ollama_requests import shown_name

OLLAMA_VERSION = "0.30.0"
"""The Ollama release whose API this surface follows: clients compare it before they use a field."""

HEALTH_TIMEOUT_S = 2.0
FAR = "2318-01-01T00:00:00Z"
"""The end of a model that stays."""
GET_OR_HEAD = ["GET", "HEAD"]


def make_cold_app(
    appliance: Appliance,
    engines: Mapping[str, EngineClient],
    residence: Residence,
    state: State,
    metrics: Metrics,
) -> FastAPI:
    """The application behind the guard: requests that reach it are authenticated."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_public_routes(app, state)
    _add_operations_routes(app, appliance, state, metrics)
    _add_openai_routes(app, appliance)
    _add_ollama_routes(app, appliance, engines, residence)
    for path in ENDPOINTS:  # only their other methods come here
        app.add_route(path, _never, methods=["POST"])

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> JSONResponse:
        return _problem(request, error)

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        text = f"{request.method} {request.url.path[:200]} is not part of this API"
        response = _problem(request, ApiError(error.status_code, code, text))
        response.headers.update(error.headers or {})  # Allow, beside a 405
        return response

    return app


async def _never(request: Request) -> Response:
    raise AssertionError(f"{request.url.path} is the hot path's")


async def _ready(engine: EngineClient) -> bool:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            response = await engine.request("GET", "/health")
            await response.read()
    except (EngineError, TimeoutError):
        return False
    return response.status == 200


def _add_public_routes(app: FastAPI, state: State) -> None:
    @app.api_route("/", methods=GET_OR_HEAD)
    async def root() -> PlainTextResponse:
        return PlainTextResponse("Ollama is running")

    @app.api_route("/api/version", methods=GET_OR_HEAD)
    async def version() -> JSONResponse:
        return JSONResponse({"version": OLLAMA_VERSION})

    @app.api_route("/healthz", methods=GET_OR_HEAD)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__})

    @app.api_route("/readyz", methods=GET_OR_HEAD)
    async def readyz() -> JSONResponse:
        parts = await state.parts()
        good = all(parts.values())
        body = {"status": "ready" if good else "not ready", "parts": parts}
        return JSONResponse(body, status_code=200 if good else 503)

    @app.api_route("/console", methods=GET_OR_HEAD)
    async def console() -> Response:
        page, policy = load_console()
        return Response(page, media_type="text/html", headers={"content-security-policy": policy})

    @app.api_route("/docs", methods=GET_OR_HEAD)
    async def docs() -> Response:
        return Response(status_code=307, headers={"location": "/console#api"})


def _add_operations_routes(
    app: FastAPI, appliance: Appliance, state: State, metrics: Metrics
) -> None:
    @app.get("/metrics")
    async def prometheus() -> Response:
        text = metrics.render(await state.engine_texts())
        return Response(text, media_type=CONTENT_TYPE)

    @app.get("/edgekit/state")
    async def current_state() -> JSONResponse:
        return JSONResponse(await state.table())

    @app.api_route("/openapi.json", methods=GET_OR_HEAD)
    async def openapi() -> JSONResponse:
        return JSONResponse(openapi_document(appliance))


def _add_openai_routes(app: FastAPI, appliance: Appliance) -> None:
    @app.api_route("/v1/models", methods=GET_OR_HEAD)
    async def models() -> JSONResponse:
        return JSONResponse(
            {"object": "list", "data": [_openai_model(model) for model in appliance.models]}
        )

    @app.api_route("/v1/models/{name:path}", methods=GET_OR_HEAD)
    async def model(name: str) -> JSONResponse:
        return JSONResponse(_openai_model(find_model(appliance, name)))


def _add_ollama_routes(
    app: FastAPI, appliance: Appliance, engines: Mapping[str, EngineClient], residence: Residence
) -> None:
    @app.api_route("/api/tags", methods=GET_OR_HEAD)
    async def tags() -> JSONResponse:
        return JSONResponse({"models": [_ollama_model(model) for model in appliance.models]})

    @app.api_route("/api/ps", methods=GET_OR_HEAD)
    async def processes() -> JSONResponse:
        running = {name for name, engine in engines.items() if await _ready(engine)}
        return JSONResponse(
            {
                "models": [
                    _running_model(
                        model, appliance.engine(model.engine), residence.ends_in_s(model.engine)
                    )
                    for model in appliance.models
                    if model.engine in running and model.defaults is None
                ]
            }
        )

    @app.post("/api/show")
    async def show(request: Request) -> JSONResponse:
        body = parse_body(await read_body(header_table(request.scope), request.receive))
        return JSONResponse(_shown(find_model(appliance, shown_name(body))))


def _openai_model(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "edgekit",
        "max_model_len": model.context,
    }


def _ollama_model(model: ServedModel) -> dict[str, Any]:
    name = model.name if ":" in model.name else f"{model.name}:latest"
    return {
        "name": name,
        "model": name,
        "modified_at": _time(model.created),
        "size": model.size,
        "digest": model.digest.partition(":")[2],
        "details": _details(model),
        "capabilities": list(model.capabilities),
    }


def _running_model(
    model: ServedModel, engine: EngineSettings, ends_in_s: float
) -> dict[str, Any]:
    """As `/api/ps` has it: `size` is the memory that the plan gives it, not its file's."""
    return {
        **_ollama_model(model),
        "size": engine.memory or model.size,
        "size_vram": engine.device_memory,
        "expires_at": FAR if math.isinf(ends_in_s) else _time(int(time.time() + ends_in_s)),
        "context_length": model.context,
    }


def _details(model: ServedModel) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": [model.family],
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }


def _shown(model: ServedModel) -> dict[str, Any]:
    made = model.defaults or Modelfile(base=model.name)
    return {
        "license": model.license,
        "modelfile": f"# served by edgekit\n{render_modelfile(made)}",
        "parameters": "\n".join(parameter_lines(made)),
        "system": made.system,
        "template": made.template.text if made.template else "",
        "details": _details(model),
        "model_info": {
            "general.architecture": model.family,
            f"{model.family}.context_length": model.context,
        },
        "capabilities": list(model.capabilities),
        "modified_at": _time(model.created),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _problem(request: Request, error: ApiError) -> JSONResponse:
    response = JSONResponse(None, status_code=error.status)
    response.body = render_problem(error, surface_of(request.url.path))
    response.headers["content-length"] = str(len(response.body))
    return response
