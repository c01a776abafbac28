"""The ASGI application: its routes read a request, hand the rows to the batcher, and
write the answer.

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

import os

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route

from penstock.bundle.bundle import Bundle
from penstock.core.errors import RequestError, UserError
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.bodies import Busy, Late
from penstock.serve.describe import openapi_of
from penstock.serve.failures import Failures
from penstock.serve.gate import Gate
from penstock.serve.metering import Meters
from penstock.serve.service import Service


def token_of(options: Serve) -> str | None:
    """Return the bearer token in the environment variable that `token_env` names; None
    without one.

    Raises:
        UserError: the variable is unset or empty.
    """
    if options.token_env is None:
        return None
    token = os.environ.get(options.token_env, "")
    if not token.strip():
        raise UserError(
            f"serve.token_env is {options.token_env}, but that environment variable is"
            " unset or empty, so the server would be open to everyone. Set it, or leave"
            " token_env out."
        )
    return token.strip()


def create_app(bundle: Bundle, options: Serve, events: Events | None = None) -> FastAPI:
    """Return an ASGI application that answers with `bundle`.

    Args:
        events: told of defects, each with its traceback; nobody unless given.

    Raises:
        UserError: a token is asked for and not there.
    """
    token = token_of(options)
    log = events or Events()
    meters = Meters(model=bundle.name or bundle.reference, version=bundle.reference)
    service = Service(bundle, options, meters, log)
    app = FastAPI(
        title=f"Penstock: {service.name}",
        version=bundle.reference,
        lifespan=service.life,
        redoc_url=None,
        docs_url=None,
    )
    # FastAPI would describe routes that read raw requests, and so know no fields.
    app.openapi = lambda: openapi_of(bundle, options)  # type: ignore[method-assign]
    failures = Failures(meters)
    for kind in (RequestError, Busy, Late, TimeoutError):
        app.add_exception_handler(kind, failures.explain)
    app.add_exception_handler(HTTPException, failures.explain_http)
    for path, endpoint in service.pages().items():
        # Unlike Starlette, FastAPI adds no HEAD to a route with GET.
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"])
    for path, endpoint in service.questions().items():
        app.add_api_route(path, endpoint, methods=["POST"])

    # A path without parameters is counted under its own name, all others under few
    # names.
    plain = {
        *service.pages(),
        *service.questions(),
        *(r.path for r in app.routes if isinstance(r, Route)),
    }
    plain = {path for path in plain if "{" not in path}
    app.add_middleware(
        Gate,
        token=token,
        meters=meters,
        events=log,
        route_of=lambda path: path if path in plain else _route(path),
    )
    return app


def _route(path: str) -> str:
    """Return the route under which the meters count a path with a model's name, or
    `other`.
    """
    if path.startswith("/v2/models/"):
        return {
            "infer": "/v2/models/{model}/infer",
            "ready": "/v2/models/{model}/ready",
        }.get(path.rsplit("/", 1)[-1], "/v2/models/{model}")
    return "other"


__all__ = ["create_app", "token_of"]
