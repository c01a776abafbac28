"""The routes' functions, and what they share: the bundle, the decoder and the batcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from penstock._version import __version__
from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve import output_tensors, protocol
from penstock.serve.batching import Batcher
from penstock.serve.bodies import Budget, body_of, bytes_in_flight
from penstock.serve.datatypes import describe
from penstock.serve.decoding import Decoder, predictions_of
from penstock.serve.failures import reply
from penstock.serve.metering import Meters
from penstock.serve.natural import natural_columns
from penstock.serve.page import PAGE

QUEUED_BATCHES = 100
"""How many full batches may wait before requests are turned away."""
STUCK, STUCK_SECONDS = 2.0, 10.0
"""A batch that takes so many of a request's longest times, and so many seconds, is taken for a program that
hangs.
"""

Endpoint = Callable[..., Any]


class Service:
    """Serves one bundle.

    Args:
        bundle: answers.
        options: limits of time and size.
        meters: count what is asked and answered.
        events: told of a worker that ended and was replaced.
    """

    def __init__(
        self, bundle: Bundle, options: Serve, meters: Meters, events: Events
    ) -> None:
        self.name = bundle.name or bundle.reference
        self._bundle, self._options, self._meters = bundle, options, meters
        # What a caller says of the contract goes before what the bundle says itself.
        is_given = "expect" in options.model_fields_set
        predictor = bundle.predictor(expect=options.expect if is_given else None)
        self._columns, self._answers = predictor.columns, predictor.answer_schema
        self._natural = natural_columns(bundle)
        self._batcher = Batcher(
            predictor,
            max_batch=options.max_batch,
            wait_ms=options.wait_ms,
            # The largest request fits into the queue, however small the batches are.
            max_queued=max(options.max_rows, QUEUED_BATCHES * options.max_batch),
            on_batch=meters.batch,
            on_defect=lambda error: events.warn(
                f"The prediction worker ended and was replaced: {error!r}"
            ),
            stuck_seconds=STUCK * options.timeout_seconds + STUCK_SECONDS,
        )
        self._decoder = Decoder(
            self._columns,
            self._answers,
            keep=bundle.keep,
            max_rows=options.max_rows,
            max_request_bytes=options.max_request_bytes,
            shape=predictor.shape,
        )
        self._budget = Budget(bytes_in_flight(options.max_request_bytes))
        self._has_started = False

    def pages(self) -> dict[str, Endpoint]:
        """Return the routes that are read, by path: GET, and HEAD for the head alone."""
        return {
            "/": self.hello,
            "/docs": self.docs,
            "/metrics": self.metrics,
            "/v2": self.server_metadata,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            "/v2/models/{model}/versions/{version}": self.model_metadata,
            "/v2/models/{model}": self.model_metadata,
            "/v2/models/{model}/versions/{version}/ready": self.model_ready,
            "/v2/models/{model}/ready": self.model_ready,
        }

    def questions(self) -> dict[str, Endpoint]:
        """Return the routes that take rows, by path: POST."""
        return {
            "/predict": self.predict,
            "/v2/models/{model}/versions/{version}/infer": self.infer,
            "/v2/models/{model}/infer": self.infer,
        }

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        """Lifespan of the application: start the batcher, and close it at the end."""
        self._batcher.start()
        self._has_started = True
        try:
            yield
        # stopped twice: the event loop ends at once, and all of its tasks with it
        except asyncio.CancelledError:
            self._batcher.stop()
            raise
        finally:
            self._has_started = False
        # The server is not ready from here on, but answers what is queued.
        await self._batcher.close()
        self._decoder.close()

    @property
    def is_ready(self) -> bool:
        """Whether a request would be answered now."""
        return self._has_started and self._batcher.alive

    # -- rows ------------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """Answer records in JSON, or a picture, with JSON."""
        options = self._options
        with self._budget.share() as share:
            body = await body_of(request, share, most=options.max_request_bytes)
            # Reading a body has limits of its own, so a slow client does not use up the
            # time to answer.
            async with asyncio.timeout(options.timeout_seconds):
                rows = await self._decoder.records(
                    body, request.headers.get("content-type", "")
                )
                # Columns and records are copies, so the body's memory is free while the
                # rows wait.
                del body
                table = await self._batcher.answer(rows.intake, rows.rows)
                about = {
                    "model": self._bundle.reference,
                    "request_id": request.state.request_id,
                }
                content = await self._decoder.write(
                    rows.rows, lambda: predictions_of(table, rows.carried, about)
                )
            return Response(content, media_type="application/json")

    async def infer(
        self, request: Request, model: str, version: str | None = None
    ) -> Response:
        """Answer tensors of the Open Inference Protocol (V2), in JSON or binary."""
        self._check_named(model, version)
        options = self._options
        with self._budget.share() as share:
            body = await body_of(request, share, most=options.max_request_bytes)
            async with asyncio.timeout(options.timeout_seconds):
                question = await self._decoder.tensors(
                    body, request.headers.get(protocol.HEADER)
                )
                # Columns are copies, so the body's memory is free while the rows wait.
                del body
                table = await self._batcher.answer(question.intake, question.rows)
                content, head = await self._decoder.write(
                    question.rows,
                    lambda: output_tensors.answer(
                        table,
                        question.wanted,
                        model=self.name,
                        version=self._bundle.id,
                        id=question.id,
                    ),
                )
        if head is None:
            return Response(content, media_type="application/json")
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(head)},
        )

    # -- pages -----------------------------------------------------------------------------------------------

    async def hello(self) -> Response:
        """What is served here, and where to ask."""
        return reply(
            {
                "model": self.name,
                "bundle": self._bundle.reference,
                "penstock": __version__,
                "inputs": list(self._columns),
                "outputs": self._answers.names,
                "routes": [
                    "POST /predict",
                    f"POST /v2/models/{self.name}/infer",
                    "GET /docs",
                    "GET /openapi.json",
                    "GET /metrics",
                    "GET /v2/health/ready",
                ],
            }
        )

    async def docs(self) -> Response:
        """The page that describes the routes, for people."""
        return Response(PAGE, media_type="text/html")

    async def metrics(self) -> Response:
        """Counts and times, as Prometheus reads them."""
        return Response(self._meters.page(), media_type=Meters.content_type)

    async def server_metadata(self) -> Response:
        """The server's metadata of the Open Inference Protocol."""
        return reply(
            {
                "name": "penstock",
                "version": __version__,
                "extensions": ["binary_tensor_data"],
            }
        )

    async def live(self) -> Response:
        """Liveness: the process answers."""
        return reply({"live": True})

    async def ready(self) -> Response:
        """Readiness: 200 if a request would be answered now, else 503."""
        return reply({"ready": self.is_ready}, 200 if self.is_ready else 503)

    async def model_metadata(self, model: str, version: str | None = None) -> Response:
        """The model's metadata of the Open Inference Protocol: its tensors."""
        self._check_named(model, version)
        inputs, outputs = describe(self._natural, self._answers)
        return reply(
            {
                "name": self.name,
                "versions": [self._bundle.id],
                "platform": "penstock",
                "inputs": inputs,
                "outputs": outputs,
            }
        )

    async def model_ready(self, model: str, version: str | None = None) -> Response:
        """Readiness of this model, as `ready`."""
        self._check_named(model, version)
        return reply(
            {"name": self.name, "ready": self.is_ready}, 200 if self.is_ready else 503
        )

    def _check_named(self, model: str, version: str | None) -> None:
        bundle = self._bundle
        if model != self.name or version not in (None, "", bundle.id, bundle.reference):
            asked = f"{model[:80]!r}{f' of version {version[:80]!r}' if version else ''}"
            raise HTTPException(
                404,
                f"there is no model {asked} here; there is {self.name!r}, version {bundle.id!r}",
            )


__all__ = ["Service"]
