"""Words about serving."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from penstock.contracts.amounts import Bytes
from penstock.contracts.part import Strict


class Serve(Strict):
    """How answers are given."""

    host: str = "127.0.0.1"
    """Loopback unless told otherwise."""
    port: int = Field(8080, ge=0, le=65535)
    """0 takes a free one and says which."""
    max_batch: int = Field(64, ge=1)
    """Requests' rows are answered together, up to so many."""
    wait_ms: float = Field(2.0, ge=0)
    """How long the first row of a batch may wait for others."""
    max_request_bytes: Bytes = 64 * 2**20
    max_rows: int = Field(10_000, ge=1)
    """The most rows in one request."""
    token_env: str | None = None
    """The environment variable that holds the bearer token; with it unset or empty the server refuses to
    start.
    """
    timeout_seconds: float = Field(30.0, gt=0)
    """A request not answered by then gets a 503."""
    expect: Literal["refuse", "ignore"] = "refuse"
    """What becomes of a row that breaks a rule of `expect` on a column that the model reads, over HTTP, in
    Python and in batches: `refuse` gives no answer and names the rule; `ignore` answers it. Rules with
    `on_violation: warn` refuse no row.
    """

    @model_serializer(mode="wrap")
    def _usual_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `expect` out where it is as usual: what was declared before there was
        this word keeps its ids.
        """
        words: dict[str, Any] = handler(self)
        if self.expect == "refuse":
            del words["expect"]
        return words
