"""The application: routes that read a request, hand its rows to the batcher, and write the answer.

Bodies are read and written as bytes, not through FastAPI's models: checking a row is the encoding's work, the
same as in training, and doing it twice would cost more than answering. FastAPI gives the routes and the page
that describes them; the description of a record comes from the bundle.

A request passes `bodies` (time and bytes), `decoding` (JSON or tensors → columns; large ones in a thread) and
the batcher.

Statuses: 400 not JSON or not of the protocol; 401 no token; 404; 405; 408 too slow a body; 411 no length; 413
too large; 415 a compressed body or a type that is not read; 422 rows that cannot be taken, each with row,
field and reason; 503 too slow, too busy or stopping. Every error is `{"error": …, "request_id": …}`, a 422
with `problems` beside.

Bytes, such as pictures, are base64 text in JSON (a `data:` URI does as well); where they are all that the
model reads, the body may be the picture itself (`Content-Type: image/jpeg`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from penstock._version import __version__
from penstock.bundle.bundle import Bundle
from penstock.core.errors import Problem, RequestError, UserError
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve import protocol
from penstock.serve.batching import Batcher
from penstock.serve.bodies import Budget, Busy, Late, body_of, bytes_in_flight
from penstock.serve.decoding import Decoder, predictions_of
from penstock.serve.describe import openapi_of
from penstock.serve.gate import Gate
from penstock.serve.metering import Meters
from penstock.serve.page import PAGE
from penstock.serve.reading import Malformed, TooLarge

QUEUED_BATCHES = 100
"""How many full batches may wait before requests are turned away."""
STUCK, STUCK_SECONDS = 2.0, 10.0
"""A batch that takes so many of a request's longest times, and so many seconds, is taken for a program that
hangs.
"""
RETRY_SECONDS = 1
"""When a client that was turned away may ask again."""


def token_of(options: Serve) -> str | None:
    """The bearer token that `token_env` names.

    Raises:
        UserError: the variable is unset or empty.
    """
    if options.token_env is None:
        return None
    token = os.environ.get(options.token_env, "")
    if not token.strip():
        raise UserError(
            f"serve.token_env is {options.token_env}, and that environment variable is unset or empty: the"
            " server would be open to all. Set it, or leave token_env out."
        )
    return token.strip()


def create_app(bundle: Bundle, options: Serve, events: Events | None = None) -> FastAPI:
    """An ASGI application that answers with `bundle`.

    Args:
        events: told of defects, each with its traceback; nobody unless given.

    Raises:
        UserError: a token is asked for and not there.
    """
    token = token_of(options)
    name = bundle.name or bundle.reference
    meters = Meters(model=name, version=bundle.reference)
    predictor = bundle.predictor()
    columns, answers = predictor.columns, predictor.answer_schema
    told = events or Events()
    batcher = Batcher(
        predictor,
        max_batch=options.max_batch,
        wait_ms=options.wait_ms,
        max_queued=max(options.max_rows, QUEUED_BATCHES * options.max_batch),
        on_batch=meters.batch,
        on_defect=lambda error: told.warn(f"the worker that answers ended and was replaced: {error!r}"),
        stuck_seconds=STUCK * options.timeout_seconds + STUCK_SECONDS,
    )
    decoder = Decoder(
        columns,
        answers,
        keep=bundle.keep,
        max_rows=options.max_rows,
        max_request_bytes=options.max_request_bytes,
    )
    budget = Budget(bytes_in_flight(options.max_request_bytes))
    ready = False

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        nonlocal ready
        batcher.start()
        ready = True
        try:
            yield
        # stopped twice: the event loop ends at once, and all of its tasks with it
        except asyncio.CancelledError:
            batcher.stop()
            raise
        finally:
            ready = False
        await batcher.close()
        decoder.close()

    app = FastAPI(
        title=f"Penstock: {name}", version=bundle.reference, lifespan=life, redoc_url=None, docs_url=None
    )
    app.openapi = lambda: openapi_of(bundle, options)  # type: ignore[method-assign]

    def reply(content: Any, status: int = 200) -> Response:
        return Response(
            to_json(content, inf_nan_mode="constants", bytes_mode="base64"),
            status,
            media_type="application/json",
        )

    async def problem(request: Request, error: Exception) -> Response:
        status, reason, more = _meaning(error)
        meters.error(reason)
        response = reply({"error": _message(error), **more, "request_id": request.state.request_id}, status)
        if status == 503:
            response.headers["retry-after"] = str(RETRY_SECONDS)
        if status == 408:
            response.headers["connection"] = "close"
        return response

    for kind in (RequestError, Busy, Late, TimeoutError):
        app.add_exception_handler(kind, problem)

    async def not_there(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        listed = (error.headers or {}).get("Allow")
        allowed = ", ".join(sorted({*listed.split(", "), "OPTIONS"})) if listed else ""
        if error.status_code == 405 and request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        where = f"{request.method[:20]} {str(request.scope['path'])[:200]}"
        response = reply(
            {"error": f"{where}: {error.detail}", "request_id": request.state.request_id}, error.status_code
        )
        if allowed:
            response.headers["allow"] = allowed
        return response

    app.add_exception_handler(HTTPException, not_there)

    def page(path: str) -> Callable[[Any], Any]:
        """A route that is read: GET, and HEAD for its head alone."""
        return app.api_route(path, methods=["GET", "HEAD"])

    @page("/")
    async def hello() -> Response:
        return reply(
            {
                "model": name,
                "bundle": bundle.reference,
                "penstock": __version__,
                "inputs": list(columns),
                "outputs": answers.names,
                "routes": [
                    "POST /predict",
                    f"POST /v2/models/{name}/infer",
                    "GET /docs",
                    "GET /openapi.json",
                    "GET /metrics",
                    "GET /v2/health/ready",
                ],
            }
        )

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        with budget.share() as share:
            body = await body_of(request, share, most=options.max_request_bytes)
            async with asyncio.timeout(options.timeout_seconds):
                rows = await decoder.records(body, request.headers.get("content-type", ""))
                del body
                table = await batcher.answer(rows.intake, rows.rows)
                about = {"model": bundle.reference, "request_id": request.state.request_id}
                content = await decoder.write(rows.rows, lambda: predictions_of(table, rows.carried, about))
            return Response(content, media_type="application/json")

    @page("/docs")
    async def docs() -> Response:
        return Response(PAGE, media_type="text/html")

    @page("/metrics")
    async def metrics() -> Response:
        return Response(meters.page(), media_type=Meters.content_type)

    @page("/v2")
    async def server_metadata() -> Response:
        return reply({"name": "penstock", "version": __version__, "extensions": ["binary_tensor_data"]})

    @page("/v2/health/live")
    async def live() -> Response:
        return reply({"live": True})

    def able() -> bool:
        return ready and batcher.alive

    @page("/v2/health/ready")
    async def is_ready() -> Response:
        return reply({"ready": able()}, 200 if able() else 503)

    def known(model: str, version: str | None = None) -> None:
        if model != name or version not in (None, "", bundle.id, bundle.reference):
            asked = f"{model[:80]!r}{f' of version {version[:80]!r}' if version else ''}"
            raise HTTPException(
                404, f"there is no model {asked} here; there is {name!r}, version {bundle.id!r}"
            )

    @page("/v2/models/{model}/versions/{version}")
    @page("/v2/models/{model}")
    async def model_metadata(model: str, version: str | None = None) -> Response:
        known(model, version)
        inputs, outputs = protocol.describe(columns, answers)
        return reply(
            {
                "name": name,
                "versions": [bundle.id],
                "platform": "penstock",
                "inputs": inputs,
                "outputs": outputs,
            }
        )

    @page("/v2/models/{model}/versions/{version}/ready")
    @page("/v2/models/{model}/ready")
    async def model_ready(model: str, version: str | None = None) -> Response:
        known(model, version)
        return reply({"name": name, "ready": able()}, 200 if able() else 503)

    @app.post("/v2/models/{model}/versions/{version}/infer")
    @app.post("/v2/models/{model}/infer")
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        known(model, version)
        with budget.share() as share:
            body = await body_of(request, share, most=options.max_request_bytes)
            async with asyncio.timeout(options.timeout_seconds):
                question = await decoder.tensors(body, request.headers.get(protocol.HEADER))
                del body
                table = await batcher.answer(question.intake, question.rows)
                content, head = await decoder.write(
                    question.rows,
                    lambda: protocol.answer(
                        table, question.wanted, model=name, version=bundle.id, id=question.id
                    ),
                )
        if head is None:
            return Response(content, media_type="application/json")
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(head)},
        )

    plain = {route.path for route in app.routes if "{" not in route.path}  # type: ignore[attr-defined]
    app.add_middleware(
        Gate,
        token=token,
        meters=meters,
        events=told,
        route_of=lambda path: path if path in plain else _route(path),
    )
    return app


def _route(path: str) -> str:
    if path.startswith("/v2/models/"):
        return {"infer": "/v2/models/{model}/infer", "ready": "/v2/models/{model}/ready"}.get(
            path.rsplit("/", 1)[-1], "/v2/models/{model}"
        )
    return "other"


def _meaning(error: Exception) -> tuple[int, str, dict[str, Any]]:
    """Status, the reason it is counted under, and what else the answer says."""
    if isinstance(error, Malformed):
        return 400, "malformed", {}
    if isinstance(error, TooLarge):
        return 413, "too_large", {}
    if isinstance(error, RequestError):
        return 422, "refused", {"problems": [_plain(p) for p in error.problems]}
    if isinstance(error, Late):
        return 408, "late", {}
    if isinstance(error, TimeoutError):
        return 503, "timeout", {}
    return 503, "busy", {}


def _plain(problem: Problem) -> dict[str, Any]:
    row = next((step for step in problem.path if isinstance(step, int)), None)
    field = next((step for step in problem.path if isinstance(step, str)), None)
    return {"row": row, "field": field, "reason": problem.text}


def _message(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not answered in time (serve.timeout_seconds); ask again later"
    return str(getattr(error, "message", error))
