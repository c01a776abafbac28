"""Far away: reaching object stores, with patience.

The one place that decides what is tried again and what is final.

What passes by itself (timeouts, 500/502/503/504, throttling, resets, bodies that end too soon) is tried
again, after waits that double and are drawn at random between zero and their bound ("full jitter": Brooker,
Exponential Backoff And Jitter, AWS Architecture Blog 2015), so that a thousand processes that were refused
together do not return together. What does not (no such object or bucket, forbidden, no credentials) is told
at once, in a sentence that says what to do.

The clouds' packages retry too. For s3:// that is switched off, so that the two do not multiply; gs:// and
abfs:// try a few times by themselves first. Every wait on the network ends: `PENSTOCK_REMOTE_TIMEOUT`
(seconds of silence, 30), `PENSTOCK_REMOTE_ATTEMPTS` (8) and `PENSTOCK_REMOTE_SECONDS` (no attempt begins
after so many, 120) say when. A training has more to lose than somebody at a terminal: what it reads within
`heard(…, waiting=…)` is bound by the seconds alone, unless attempts are set. (What it writes, checkpoints,
waits nowhere: `train.checkpoint_uploader` sends them again.)

Whoever listens (`listening`) is told of retries, once in a while; without a listener it is a Python warning.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from penstock.core.credentials import key_and_secret, restored
from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.redact import redacted

_jitter = random.Random()
"""Chance of its own: waiting for a store must not move the generator that a user's program draws from."""

P = ParamSpec("P")
T = TypeVar("T")

RANGE_BYTES = 16 * 2**20
"""An object larger than this comes in ranges, several at once: one stream of an object store is far slower
than a network.
"""
RANGES_AT_ONCE = 8
"""Ranges under way in a process, over all objects: with `RANGE_BYTES` they bound the memory of fetching."""
CONNECTIONS = 32
_ANY = 1_000_000
"""Attempts, where the seconds alone bound."""
_TELL_SECONDS = 10.0
_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
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
        # by name, since their packages may be absent: botocore, aiohttp, urllib3, requests, google, azure
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


@dataclass(frozen=True)
class Patience:
    """How long to go on trying."""

    attempts: int = 8
    """Requests in all, the first included: with the waits below about 13 seconds on average."""
    seconds: float = 120.0
    """No attempt begins after so many seconds."""
    timeout_seconds: float = 30.0
    """Of silence on a connection, after which an attempt has failed."""
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 20.0

    @classmethod
    def from_environment(cls, *, lasting: bool = False) -> Patience:
        """`PENSTOCK_REMOTE_ATTEMPTS`, `PENSTOCK_REMOTE_SECONDS`, `PENSTOCK_REMOTE_TIMEOUT`; the defaults
        where they are not set.

        Args:
            lasting: any number of attempts where they are not set.

        Raises:
            StoreError: one of them is no positive number.
        """
        found: dict[str, float] = {}
        for word, default in (
            ("attempts", _ANY if lasting else cls.attempts),
            ("seconds", cls.seconds),
            ("timeout", cls.timeout_seconds),
        ):
            name = f"PENSTOCK_REMOTE_{word.upper()}"
            text = os.environ.get(name) or str(default)
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if not 0 < value < float("inf") or (word == "attempts" and value < 1):
                raise StoreError(f"the environment variable {name} must be a positive number; found {text!r}")
            found[word] = value
        return cls(int(found["attempts"]), found["seconds"], found["timeout"])

    def waits(self, chance: Callable[[], float] | None = None) -> Iterator[float]:
        """Seconds to wait before the second attempt, the third, …: doubling bounds, and anything below them
        with equal chance.
        """
        bound = self.first_wait_seconds
        for _ in range(self.attempts - 1):
            yield (chance or _jitter.random)() * bound
            bound = min(bound * 2, self.longest_wait_seconds)


class Torn(OSError):
    """A body that is not as long as it should be."""


class GaveUp(OSError):
    """What kept failing in passing ways until the bound."""


def retry(ask: Callable[[], T], *, what: str, patience: Patience | None = None, is_read: bool = False) -> T:
    """`ask()`, asked again while it fails in a way that passes.

    Args:
        what: told when it is tried again: `read s3://team/penstock/…`.
        is_read: somebody waits for what is read; see `listening`.

    Raises:
        GaveUp: it still failed at the bound.
        Exception: whatever `ask` raises that does not pass, at once.
    """
    listener = _listener() if is_read else None
    waiting = listener.waiting if listener else None
    bound = patience or Patience.from_environment(lasting=waiting is not None)
    began, waits, tries = time.monotonic(), bound.waits(), 0
    while True:
        tries += 1
        try:
            return ask()
        except Exception as error:
            if not transient(error):
                raise
            wait, gone = next(waits, None), time.monotonic() - began
            if wait is None or gone + wait > bound.seconds:
                raise GaveUp(
                    f"{first_line(error)} (given up after {tries} attempt{'s' if tries > 1 else ''} in"
                    f" {gone:.0f} s)"
                ) from error
            _notify_retry(f"could not {what} ({first_line(error)}); trying again", tries)
            if waiting is not None:
                waiting()
            time.sleep(wait)


def transient(error: BaseException) -> bool:
    """Whether a failure is of the kind that passes by itself."""
    causes = list(causes_of(error))
    if any(isinstance(cause, GaveUp) for cause in causes):
        return False  # patience within patience would multiply
    if any(
        isinstance(cause, Torn) or any(base.__name__ in _PASSING for base in type(cause).__mro__)
        for cause in causes
    ):
        return True
    for cause in causes:
        status, code = answer_of(cause)
        if code in _CODES or status in _STATUSES:
            return True
        if (
            status is not None
            or type(cause).__name__ in _FINAL
            or isinstance(
                cause,
                (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError),
            )
        ):
            return False
        if isinstance(cause, (TimeoutError, ConnectionError)) or (
            isinstance(cause, OSError) and cause.errno in _ERRNOS
        ):
            return True
    return False


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
    """The error that an error stands for comes first: s3fs translates the clouds' answers, and loses their
    status.
    """
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
        if status is None and str(code).isdigit():
            status = int(code)
        return status, code
    for word in ("status_code", "status", "code"):
        value = getattr(error, word, None)
        if isinstance(value, int) and 300 <= value < 600:
            return value, None
    return None, None


def first_line(error: BaseException) -> str:
    """The first line of an error, redacted, at most 300 characters, without its full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # Redacted before it is cut: half a URL does not show that it holds a password.
    said: str = redacted((text or type(error).__name__).strip().splitlines()[0][:20_000])[:300].rstrip(".")
    return said


def explain(error: BaseException, url: str) -> str:
    """Why an object store refused, and what to do: the end of a sentence that begins with what was tried."""
    protocol = url.split("://", 1)[0]
    how = _HOW.get(protocol, "Set them as the store's own tools expect")
    said = first_line(error)
    for cause in causes_of(error):
        status, code = answer_of(cause)
        if type(cause).__name__ in _FINAL or (status is None and "credential" in str(cause).lower()):
            return f"it needs credentials, and none were found ({said}). {how}."
        if code in _REFUSED or status == 401:
            return f"its credentials are refused ({said}). {how}."
        if code == "NoSuchBucket":
            return (
                f"there is no bucket {url.split('://', 1)[-1].split('/', 1)[0]!r}. Create it, or correct the"
                " name."
            )
        if status == 403 or isinstance(cause, PermissionError):
            return (
                f"{said}. These credentials may not do that: give them the permission, or use others. {how}."
            )
    return said


def refusals() -> tuple[type[BaseException], ...]:
    """OSError, and what the clouds' packages raise beside it (only of those already imported)."""
    found: list[type[BaseException]] = [OSError]
    for module, name in (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("azure.core.exceptions", "AzureError"),
        ("aiohttp", "ClientError"),
    ):
        error = getattr(sys.modules.get(module), name, None)
        if error is not None:
            found.append(error)
    return tuple(found)


# -- who listens ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Listener:
    """Somebody who is told what happens far away, and who to go by once it has left."""

    events: Events
    waiting: Callable[[], None] | None
    outer: _Listener | None

    def root(self) -> _Listener:
        return self if self.outer is None else self.outer.root()


_here: ContextVar[_Listener | None] = ContextVar("penstock_listener", default=None)
_active: list[_Listener] = []
_told: dict[int, float] = {}
"""When each outermost listener, by its `id`, was last told of a retry; by the monotonic clock."""
_telling = threading.Lock()
_is_silent: ContextVar[bool] = ContextVar("penstock_silent", default=False)


@contextmanager
def in_silence() -> Iterator[None]:
    """Tell nobody of retries while the body runs: for housekeeping that may fail, in a thread that is
    nobody's.
    """
    before = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(before)


@contextmanager
def listening(events: Events, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Tell `events` what happens far away while the body runs: in this thread, and in threads that work for
    it (`as_here`).

    Two trainings in one process, each in a thread of its own, hear each of its own. A thread that nobody has
    given a listener is heard by the only one there is; where there are several, it cannot be known whose it
    is.

    Args:
        waiting: given where an object store that refuses for a minute or two must not end what is done;
            called before each wait for what is read, so that whoever watches knows that it is still tried.
    """
    outer = _here.get()
    listener = _Listener(events, waiting or (outer.waiting if outer else None), outer)
    with _telling:
        _active.append(listener)
    _here.set(listener)
    try:
        yield
    finally:
        with _telling:
            _active.remove(listener)
            _told.pop(id(listener), None)
        _here.set(outer)


def as_here(work: Callable[P, T]) -> Callable[P, T]:
    """`work`, to be called in another thread as if in this one: what happens far away is told to this
    thread's listener.
    """
    listener = _here.get()

    @wraps(work)
    def there(*arguments: P.args, **words: P.kwargs) -> T:
        before = _here.get()
        _here.set(listener)
        try:
            return work(*arguments, **words)
        finally:
            _here.set(before)

    return there


def _listener() -> _Listener | None:
    """Who is to be told what this thread meets."""
    listener = _here.get()
    with _telling:
        while listener is not None and listener not in _active:  # its body has ended, and this thread goes on
            listener = listener.outer
        if listener is not None:
            return listener
        roots = {active.root() for active in _active}
        return _active[-1] if len(roots) == 1 else None


def notify(text: str, **fields: object) -> None:
    """Warn the innermost listener; without one it is a Python warning."""
    listener = _listener()
    if listener is not None:
        listener.events.warn(text, **fields)
    else:
        warnings.warn(redacted(text), RuntimeWarning, stacklevel=2)


def _notify_retry(text: str, tries: int) -> None:
    listener = None if _is_silent.get() else _listener()
    if listener is None:  # it passes in silence: nothing is lost, and the bound has its own error
        return
    whose = id(listener.root())
    with _telling:
        now = time.monotonic()
        is_quiet = now - _told.get(whose, -_TELL_SECONDS) < _TELL_SECONDS
        if not is_quiet:
            _told[whose] = now
    if not is_quiet:
        listener.events.warn(text, attempt=tries)


# -- reaching ------------------------------------------------------------------------------------------------


def _check_place(url: str) -> None:
    """Whether a URL is text, and names a bucket or host at all: packages answer one that does not with errors
    of many kinds, and late.

    Raises:
        ValueError: it does not.
    """
    try:
        url.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    parts = urlsplit(url)
    if parts.scheme in _WITH_PLACE and not parts.netloc:
        raise ValueError(f"it names no bucket or host after {parts.scheme}://")
    if parts.scheme in ("http", "https", "hdfs"):
        _ = parts.port  # raises where it is none


def reach(url: str, *, patient: bool = False) -> tuple[Any, str]:
    """The fsspec file system of a URL with timeouts, without retries of its own and without remembered
    listings; and the path in it.

    Args:
        patient: for readers that hand the file system on to others' code, where `retry` has no place: s3://
            then tries again by itself, at most four times three requests (s3fs those bodies that end too
            soon, botocore what a server refuses).

    Raises:
        ImportError, ValueError: as fsspec raises them.
        UserError: the URL's credentials were blanked when it was written down, and the environment does not
            have them.
    """
    import fsspec

    url = restored(url)
    _check_place(url)
    options: dict[str, Any] = {}
    if url.split("://", 1)[0] in ("s3", "s3a"):
        timeout = Patience.from_environment().timeout_seconds
        mine = {
            "connect_timeout": min(timeout, 10.0),
            "read_timeout": timeout,
            "max_pool_connections": CONNECTIONS,
            "retries": {"total_max_attempts": 3 if patient else 1, "mode": "standard"},
        }
        from botocore.config import Config

        if "response_checksum_validation" in Config.OPTION_DEFAULTS:
            # content is held against its manifest's SHA-256, which names what is wrong
            mine["response_checksum_validation"] = "when_required"
        configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options = {
            "config_kwargs": {**mine, **configured},
            "use_listings_cache": patient,
            "max_concurrency": 1,
        }
        url, key, secret = key_and_secret(url)  # s3fs would take them for the bucket's name
        options |= {"key": key, "secret": secret} if key and secret else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:  # noqa: BLE001
        # Some protocols answer a URL that lacks something with whatever comes.
        raise ValueError(
            f"it is no URL that {url.split('://', 1)[0]}:// can open ({type(error).__name__}: {error})"
        ) from None
    if options:
        system.retries = 4 if patient else 1
    return system, path


_WITH_PLACE = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https", "hdfs"))
_pool: ThreadPoolExecutor | None = None
_pool_of = 0


def _ranges() -> ThreadPoolExecutor:
    global _pool, _pool_of
    with _telling:
        if _pool is None or _pool_of != os.getpid():  # threads do not survive a fork
            _pool, _pool_of = ThreadPoolExecutor(RANGES_AT_ONCE, "penstock-range"), os.getpid()
        return _pool


def read_range(
    system: Any, path: str, start: int, stop: int, *, what: str, patience: Patience | None = None
) -> bytes:
    """Bytes [start, stop) of an object; one that is shorter or longer than that counts as torn, and is asked
    for again.
    """

    def ask() -> bytes:
        found = bytes(system.cat_file(path, start=start, end=stop))
        if len(found) != stop - start:
            raise Torn(f"{len(found):,} bytes came where {stop - start:,} were asked for")
        return found

    return retry(ask, what=what, patience=patience, is_read=True)


def read_pieces(
    system: Any, path: str, size_bytes: int, *, what: str, range_bytes: int | None = None
) -> Iterator[bytes]:
    """An object of known size, whole, piece by piece in order; the pieces are fetched in parallel, a few
    ahead.

    Raises:
        GaveUp: it was not there whole within the bound.
        Exception: what the object store's package raises for what is final.
    """
    step = range_bytes or RANGE_BYTES
    if size_bytes <= step:

        def ask() -> bytes:
            found = bytes(system.cat_file(path))
            if len(found) != size_bytes:
                raise Torn(f"{len(found):,} bytes came where its manifest says {size_bytes:,}")
            return found

        yield retry(ask, what=what, is_read=True)
        return
    waiting: deque[Future[bytes]] = deque()
    pool = _ranges()
    bounds = ((start, min(start + step, size_bytes)) for start in range(0, size_bytes, step))
    try:
        for start, stop in bounds:
            waiting.append(pool.submit(as_here(read_range), system, path, start, stop, what=what))
            if len(waiting) == RANGES_AT_ONCE // 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
