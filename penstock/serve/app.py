"""The application: routes that read a request, hand its rows to the batcher, and write the answer.

Bodies are read and written as bytes (pydantic-core's JSON), not through FastAPI's models: checking a row is the
encoding's work, the same as in training, and doing it twice would cost more than answering. FastAPI gives the routes and
the page that describes them; the description of a record comes from the bundle.

Statuses: 400 not JSON or not of the protocol; 401 no token; 404; 413 too large; 415 a compressed body; 422 rows that
cannot be taken, each with row, field and reason; 503 too slow, too busy or stopping. Every error is
`{"error": …, "request_id": …}`, a 422 with `problems` beside.

Bytes, such as pictures, are base64 text in JSON (a `data:` URI does as well); where they are all that the model reads,
the body may be the picture itself (`Content-Type: image/jpeg`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from penstock._version import __version__
from penstock.bundle.bundle import Bundle
from penstock.bundle.rows import from_records
from penstock.core.errors import Problem, RequestError, UserError
from penstock.core.events import Events
from penstock.recipe.names import kept_names
from penstock.recipe.schema import Serve
from penstock.serve import protocol
from penstock.serve.batching import Batcher, Busy
from penstock.serve.describe import openapi_of
from penstock.serve.gate import Gate
from penstock.serve.metering import Meters
from penstock.serve.page import PAGE
from penstock.serve.protocol import Malformed, TooLarge

QUEUED_BATCHES = 100
"""How many full batches may wait before requests are turned away."""
DRAIN_SECONDS = 30.0


def token_of(options: Serve) -> str | None:
    """The bearer token that `token_env` names.

    Raises:
        UserError: the variable is unset or empty.
    """
    if options.token_env is None:
        return None
    token = os.environ.get(options.token_env, "")
    if not token.strip():
        raise UserError(f"serve.token_env is {options.token_env}, and that environment variable is unset or empty: the server would be open to all. Set it, or leave token_env out.")
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
    batcher = Batcher(
        predictor, max_batch=options.max_batch, wait_ms=options.wait_ms, max_queued=max(options.max_rows, QUEUED_BATCHES * options.max_batch), on_batch=meters.batch)
    ready = False

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        nonlocal ready
        batcher.start()
        ready = True
        yield
        ready = False
        await batcher.close()

    app = FastAPI(title=f"Penstock: {name}", version=bundle.reference, lifespan=life, redoc_url=None, docs_url=None)
    app.openapi = lambda: openapi_of(bundle, options)  # type: ignore[method-assign]

    def reply(content: Any, status: int = 200) -> Response:
        return Response(to_json(content, inf_nan_mode="constants", bytes_mode="base64"), status, media_type="application/json")

    def problem(request: Request, error: Exception) -> Response:
        status, reason, more = _meaning(error)
        meters.error(reason)
        return reply({"error": _message(error), **more, "request_id": request.state.request_id}, status)

    for kind in (RequestError, Busy, TimeoutError):
        app.add_exception_handler(kind, problem)

    async def not_there(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return reply({"error": f"{request.method} {request.url.path}: {error.detail}", "request_id": request.state.request_id}, error.status_code)

    app.add_exception_handler(HTTPException, not_there)

    @app.get("/")
    async def hello() -> Response:
        return reply({
            "model": name, "bundle": bundle.reference, "penstock": __version__, "inputs": list(columns), "outputs": answers.names,
            "routes": ["POST /predict", f"POST /v2/models/{name}/infer", "GET /docs", "GET /openapi.json", "GET /metrics", "GET /v2/health/ready"],
        })

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        content = await _body(request, options.max_request_bytes)
        raw = _raw(request, content, columns)
        records = raw if raw is not None else _records(protocol.parse_json(content), options.max_rows, wrapped="records" not in columns)
        kept = [name for name in bundle.keep if name not in columns and any(isinstance(r, dict) and name in r for r in records)]
        table = await asyncio.wait_for(batcher.answer(lambda: from_records(records, columns), len(records)), options.timeout_seconds)
        predictions = table.to_pylist()
        carried = [*kept, *(name for name in bundle.keep if name in columns)]
        if carried:
            written = kept_names(carried, answers.names)  # a truth that is kept never hides the answer, nor the answer it
            predictions = [
                {**{own: record.get(name) for name, own in written.items()}, **prediction}
                for record, prediction in zip(records, predictions, strict=True)
            ]
        return reply({"predictions": predictions, "model": bundle.reference, "request_id": request.state.request_id})

    @app.get("/docs")
    async def page() -> Response:
        return Response(PAGE, media_type="text/html")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(meters.page(), media_type=Meters.content_type)

    @app.get("/v2")
    async def server_metadata() -> Response:
        return reply({"name": "penstock", "version": __version__, "extensions": ["binary_tensor_data"]})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return reply({"live": True})

    @app.get("/v2/health/ready")
    async def is_ready() -> Response:
        return reply({"ready": ready}, 200 if ready else 503)

    def known(model: str, version: str | None = None) -> None:
        if model != name or version not in (None, "", bundle.id, bundle.reference):
            raise HTTPException(404, f"there is no model {model!r}{f' of version {version!r}' if version else ''} here; there is {name!r}, version {bundle.id!r}")

    @app.get("/v2/models/{model}/versions/{version}")
    @app.get("/v2/models/{model}")
    async def model_metadata(model: str, version: str | None = None) -> Response:
        known(model, version)
        inputs, outputs = protocol.describe(columns, answers)
        return reply({"name": name, "versions": [bundle.id], "platform": "penstock", "inputs": inputs, "outputs": outputs})

    @app.get("/v2/models/{model}/versions/{version}/ready")
    @app.get("/v2/models/{model}/ready")
    async def model_ready(model: str, version: str | None = None) -> Response:
        known(model, version)
        return reply({"name": name, "ready": ready}, 200 if ready else 503)

    @app.post("/v2/models/{model}/versions/{version}/infer")
    @app.post("/v2/models/{model}/infer")
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        known(model, version)
        body = await _body(request, options.max_request_bytes)
        question = protocol.parse(body, request.headers.get(protocol.HEADER), columns, answers, max_rows=options.max_rows)
        table: pa.Table = await asyncio.wait_for(batcher.answer(question.intake, question.rows), options.timeout_seconds)
        content, head = protocol.answer(table, question.wanted, model=name, version=bundle.id, id=question.id)
        if head is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={"Inference-Header-Content-Length": str(head)})

    plain = {route.path for route in app.routes if "{" not in route.path}  # type: ignore[attr-defined]
    app.add_middleware(Gate, token=token, meters=meters, events=events or Events(), route_of=lambda path: path if path in plain else _route(path))
    return app


def _route(path: str) -> str:
    if path.startswith("/v2/models/"):
        return {"infer": "/v2/models/{model}/infer", "ready": "/v2/models/{model}/ready"}.get(path.rsplit("/", 1)[-1], "/v2/models/{model}")
    return "other"


def _records(body: Any, most: int, *, wrapped: bool) -> list[Any]:
    """The records of a `/predict` body: `{"records": […]}`, a list of records, or one record.

    `wrapped`: no column is called `records`, so that word can only mean the wrapping.
    """
    records = body
    if isinstance(body, dict):
        records = body["records"] if "records" in body and (wrapped or isinstance(body["records"], list)) else [body]
    if not isinstance(records, list):
        raise Malformed('expected {"records": [{field: value, …}, …]}; found something else')
    if len(records) > most:
        raise TooLarge(f"the request has {len(records)} rows; at most {most} are taken at once (serve.max_rows)")
    return records


def _raw(request: Request, content: bytes, columns: Mapping[str, pa.DataType]) -> list[Any] | None:
    """The one record of a body that is a picture itself (`Content-Type: image/…`); None for JSON.

    Raises:
        Malformed: the model reads more than one column, or none of bytes.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind != "application/octet-stream":
        return None
    only = next(iter(columns), "")
    if len(columns) != 1 or not protocol.is_bytes(columns[only]):
        raise Malformed(f"a body of {kind} is one column of bytes, but the model reads {', '.join(f'{name} ({type})' for name, type in columns.items())}; send JSON, with bytes as base64")
    return [{only: content}]


async def _body(request: Request, most: int) -> bytes:
    """The whole body, refused as soon as it is known to be too large."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise HTTPException(415, f"a body in the encoding {encoding!r} is not read; send it uncompressed")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise TooLarge(f"the body has {told} bytes; at most {most} are taken (serve.max_request_bytes)")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge(f"the body has more than {most} bytes (serve.max_request_bytes)")
        parts.append(part)
    return b"".join(parts)


def _meaning(error: Exception) -> tuple[int, str, dict[str, Any]]:
    """Status, the reason it is counted under, and what else the answer says."""
    if isinstance(error, Malformed):
        return 400, "malformed", {}
    if isinstance(error, TooLarge):
        return 413, "too_large", {}
    if isinstance(error, RequestError):
        return 422, "refused", {"problems": [_plain(p) for p in error.problems]}
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
