"""What object stores answer when they refuse: what passes by itself, what is final, and what to do about it.

What passes by itself: timeouts, 500/502/503/504, throttling, resets, bodies that end too soon. What does not
(no such object or bucket, forbidden, no credentials) is explained at once. Errors are known by their names
and codes, since the clouds' packages may be absent.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from penstock.core.redact import redacted

# HTTP: timeouts, too early, too many requests, and what servers say when they are
# overloaded.
_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Amazon's own words for the same, some of which come with status 400.
_CODES = frozenset(
    {
        "InternalError",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
# Of the network alone: a full disk or a missing file on this machine does not pass.
_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
_PASSING = frozenset(
    {
        # By name, since their packages may be absent: botocore, aiohttp, urllib3, requests, google, azure.
        "ClientConnectionError",
        "ClientOSError",
        "ClientPayloadError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "ServiceRequestError",
        "ServiceResponseError",
        "ServiceUnavailable",
        "TransportError",
    }
)
# Retrying cannot find credentials; they are known by name, as above.
_FINAL = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "DefaultCredentialsError",
        "ClientAuthenticationError",
        "ProfileNotFound",
    }
)
_FINAL_ERRORS = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
# Codes that mean wrong or outdated credentials, whatever their status.
_REFUSED = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
    }
)
_HOW = {
    "s3": (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of ~/.aws/credentials"
        " (and AWS_ENDPOINT_URL for a store that is not Amazon's)"
    ),
    "gs": (
        "Set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or run `gcloud auth"
        " application-default login`"
    ),
    "abfs": (
        "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING"
    ),
}
_HOW |= {"s3a": _HOW["s3"], "gcs": _HOW["gs"], "abfss": _HOW["abfs"], "az": _HOW["abfs"]}


class Torn(OSError):
    """A body that is not as long as it should be."""


class GaveUp(OSError):
    """What kept failing in passing ways until the bound."""


def transient(error: BaseException) -> bool:
    """Whether a failure is of the kind that passes by itself."""
    causes = list(causes_of(error))
    if any(isinstance(cause, GaveUp) for cause in causes):
        return False  # patience within patience would multiply
    # Before the loop: a torn body may come with status 200 or 206.
    if any(isinstance(cause, Torn) or _is_named(cause, _PASSING) for cause in causes):
        return True
    for cause in causes:
        status, code = answer_of(cause)
        # Codes before statuses: a throttled request may have status 400.
        if code in _CODES or status in _STATUSES:
            return True
        # Any other status is a definite answer, and asking again will not change it.
        if (
            status is not None
            or type(cause).__name__ in _FINAL
            or isinstance(cause, _FINAL_ERRORS)
        ):
            return False
        is_of_network = isinstance(cause, OSError) and cause.errno in _ERRNOS
        if isinstance(cause, (TimeoutError, ConnectionError)) or is_of_network:
            return True
    return False


def _is_named(error: BaseException, names: frozenset[str]) -> bool:
    return any(base.__name__ in names for base in type(error).__mro__)


def is_taken(error: BaseException) -> bool:
    """Whether an object store refused a conditional put since the object is there (or is being put by
    another).
    """
    for cause in causes_of(error):
        status, code = answer_of(cause)
        if (
            status in (409, 412)
            or code in ("PreconditionFailed", "ConditionalRequestConflict")
            or type(cause).__name__ == "ResourceExistsError"
        ):
            return True
    return False


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the innermost first, at most eight.

    s3fs translates the clouds' answers into errors of its own, which lose the status;
    the cause has it.
    """
    # At most eight, and none twice, since causes may form a circle.
    chain: list[BaseException] = []
    while error is not None and error not in chain and len(chain) < 8:
        chain.append(error)
        error = error.__cause__  # type: ignore[assignment]
    yield from reversed(chain)


def answer_of(error: BaseException) -> tuple[int | None, str | None]:
    """The HTTP status and the cloud's own code, where an error has them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = response.get("Error", {}).get("Code")
        # Some answers carry the status in the place of the code.
        if status is None and str(code).isdigit():
            status = int(code)
        return status, code
    for word in ("status_code", "status", "code"):
        value = getattr(error, word, None)
        # Only numbers that can be a refusal: `code` is an exit code or a gRPC number
        # elsewhere.
        if isinstance(value, int) and 300 <= value < 600:
            return value, None
    return None, None


def first_line(error: BaseException) -> str:
    """The first line of an error, redacted, at most 300 characters, without its full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # Redacted before it is cut: half a URL does not show that it holds a password.
    line: str = redacted((text or type(error).__name__).strip().splitlines()[0][:20_000])[
        :300
    ].rstrip(".")
    return line


def explain(error: BaseException, url: str) -> str:
    """Why an object store refused, and what to do: the end of a sentence that begins
    with what was tried.
    """
    protocol = url.split("://", 1)[0]
    how = _HOW.get(protocol, "Set them as the store's own tools expect")
    line = first_line(error)
    # The innermost cause first: it has the cloud's own code.
    for cause in causes_of(error):
        status, code = answer_of(cause)
        if type(cause).__name__ in _FINAL or (
            status is None and "credential" in str(cause).lower()
        ):
            return f"it needs credentials, and none were found ({line}). {how}."
        if code in _REFUSED or status == 401:
            return f"its credentials are refused ({line}). {how}."
        if code == "NoSuchBucket":
            return (
                f"there is no bucket {url.split('://', 1)[-1].split('/', 1)[0]!r}. Create it, or correct the"
                " name."
            )
        if status == 403 or isinstance(cause, PermissionError):
            return (
                f"{line}. These credentials may not do that: give them the permission, or use"
                f" others. {how}."
            )
    return line


def refusals() -> tuple[type[BaseException], ...]:
    """OSError, and what the clouds' packages raise beside it (only of those already imported)."""
    classes: list[type[BaseException]] = [OSError]
    # An error of a package that was never imported cannot have been raised.
    for module, name in (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("azure.core.exceptions", "AzureError"),
        ("aiohttp", "ClientError"),
    ):
        error = getattr(sys.modules.get(module), name, None)
        if error is not None:
            classes.append(error)
    return tuple(classes)
