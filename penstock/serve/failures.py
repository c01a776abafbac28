"""Error answers: the status, one sentence, and the request's id.

Every error is `{"error": …, "request_id": …}`, a 422 with `problems` beside; `penstock.serve.app` lists the
statuses.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from penstock.core.errors import Problem, RequestError
from penstock.serve.bodies import Late
from penstock.serve.metering import Meters
from penstock.serve.reading import Malformed, TooLarge

RETRY_SECONDS = 1
"""When a client that was turned away may ask again."""


def reply(content: Any, status: int = 200) -> Response:
    """Return `content` as a JSON response; bytes in it as base64 text."""
    body = to_json(content, inf_nan_mode="constants", bytes_mode="base64")
    return Response(body, status, media_type="application/json")


class Failures:
    """Exception handlers of the application; each error is counted in `meters`."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    async def explain(self, request: Request, error: Exception) -> Response:
        """Answer a request that is refused, that came too late, or for which there is
        no room.
        """
        status, reason, more = _meaning(error)
        self._meters.error(reason)
        response = reply(
            {"error": _message(error), **more, "request_id": request.state.request_id},
            status,
        )
        if status == 503:
            response.headers["retry-after"] = str(RETRY_SECONDS)
        # The rest of the body may still come, so no other request can use the
        # connection.
        if status == 408:
            response.headers["connection"] = "close"
        return response

    async def explain_http(self, request: Request, error: Exception) -> Response:
        """Answer where no route fits (404), or not with this method (405, with
        `Allow`).
        """
        assert isinstance(error, HTTPException)
        listed = (error.headers or {}).get("Allow")
        allowed = ", ".join(sorted({*listed.split(", "), "OPTIONS"})) if listed else ""
        if error.status_code == 405 and request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        where = f"{request.method[:20]} {str(request.scope['path'])[:200]}"
        content = {
            "error": f"{where}: {error.detail}",
            "request_id": request.state.request_id,
        }
        response = reply(content, error.status_code)
        if allowed:
            response.headers["allow"] = allowed
        return response


def _meaning(error: Exception) -> tuple[int, str, dict[str, Any]]:
    """Return an error's status, the reason it is counted under, and further members of
    the answer.
    """
    # These two are RequestErrors as well, so they are asked about first.
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
    # A path has a row's index and a field's name, or one of them.
    row = next((step for step in problem.path if isinstance(step, int)), None)
    field = next((step for step in problem.path if isinstance(step, str)), None)
    return {"row": row, "field": field, "reason": problem.text}


def _message(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not answered in time (serve.timeout_seconds); ask again later"
    return str(getattr(error, "message", error))


__all__ = ["Failures", "reply"]
