"""Object stores by their URLs: opened with timeouts, read in ranges, several at once.

`retries` decides how long to go on trying, `remote_errors` what passes and what is final, `listeners` who is
told. The clouds' packages retry too: for s3:// that is switched off, so that the two do not multiply; gs://
and abfs:// try a few times by themselves first.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from penstock.core.credentials import key_and_secret, restored
from penstock.core.encryption import object_options
from penstock.core.listeners import as_here
from penstock.core.remote_errors import Torn
from penstock.core.retries import Patience, retry

RANGE_BYTES = 16 * 2**20
"""An object larger than this comes in ranges, several at once: one stream of an object store is far slower
than a network.
"""
RANGES_AT_ONCE = 8
"""Ranges under way in a process, over all objects: with `RANGE_BYTES` they bound the memory of fetching."""
# Of botocore's pool: more than the ranges and whole files that are under way together.
CONNECTIONS = 32
_WITH_PLACE = frozenset(
    ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https", "hdfs")
)


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
        if ":" in (parts.hostname or ""):
            # fsspec takes `::` for a chain of protocols, and brackets for a pattern
            raise ValueError(
                "it names its host by an IPv6 address; give the host a name, as in /etc/hosts"
            )


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
            have them; or it asks for an encryption that S3 does not know.
    """
    import fsspec

    # A URL that was written down has its credentials blanked; the environment gives
    # them back.
    url = restored(url)
    _check_place(url)
    options: dict[str, Any] = {}
    if url.split("://", 1)[0] in ("s3", "s3a"):
        url, key, secret = key_and_secret(
            url
        )  # s3fs would take them for the bucket's name
        options = _s3_options(patient=patient)
        options |= {"key": key, "secret": secret} if key and secret else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    # These are part of this function's contract; the rest is translated below.
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:  # noqa: BLE001
        # Some protocols answer a URL that lacks something with whatever comes.
        raise ValueError(
            f"it is no URL that {url.split('://', 1)[0]}:// can open ({type(error).__name__}: {error})"
        ) from None
    # Only s3fs has options here, and counts its own tries in this attribute.
    if options:
        system.retries = 4 if patient else 1
    return system, path


def _s3_options(*, patient: bool) -> dict[str, Any]:
    import fsspec
    from botocore.config import Config

    timeout = Patience.from_environment().timeout_seconds
    config = {
        # A host that does not answer shows within seconds; a slow body may take the
        # whole timeout.
        "connect_timeout": min(timeout, 10.0),
        "read_timeout": timeout,
        "max_pool_connections": CONNECTIONS,
        "retries": {"total_max_attempts": 3 if patient else 1, "mode": "standard"},
    }
    # Older versions of botocore do not know the word, and refuse it.
    if "response_checksum_validation" in Config.OPTION_DEFAULTS:
        # Content is compared with its manifest's SHA-256, which names what is wrong.
        config["response_checksum_validation"] = "when_required"
    # What the user configured for fsspec wins over these values.
    configured = fsspec.config.conf.get("s3", {})
    written = {**object_options(), **configured.get("s3_additional_kwargs", {})}
    return {
        "config_kwargs": {**config, **configured.get("config_kwargs", {})},
        **({"s3_additional_kwargs": written} if written else {}),
        # Others write to the store, so a remembered listing would be wrong.
        "use_listings_cache": patient,
        "max_concurrency": 1,  # ranges are fetched in parallel here, within a bound of memory
    }


_pool: ThreadPoolExecutor | None = None
_pool_of = 0
_pool_lock = threading.Lock()


def _ranges() -> ThreadPoolExecutor:
    global _pool, _pool_of
    with _pool_lock:
        if _pool is None or _pool_of != os.getpid():  # threads do not survive a fork
            _pool, _pool_of = (
                ThreadPoolExecutor(RANGES_AT_ONCE, "penstock-range"),
                os.getpid(),
            )
        return _pool


def read_range(
    system: Any,
    path: str,
    start: int,
    stop: int,
    *,
    what: str,
    patience: Patience | None = None,
) -> bytes:
    """Bytes [start, stop) of an object; one that is shorter or longer than that counts as torn, and is asked
    for again.
    """

    def ask() -> bytes:
        data = bytes(system.cat_file(path, start=start, end=stop))
        # Some clients end early without an error when a connection breaks.
        if len(data) != stop - start:
            raise Torn(f"{len(data):,} bytes came where {stop - start:,} were asked for")
        return data

    return retry(ask, what=what, patience=patience, is_read=True)


def read_pieces(
    system: Any, path: str, size_bytes: int, *, what: str, range_bytes: int | None = None
) -> Iterator[bytes]:
    """An object of known size, whole, piece by piece in order; the pieces are fetched in parallel, a few
    ahead.

    Not by `core.ordered_map`, which has threads of its own: here all objects that are read at one time share
    a pool, since it is the machine's connections that are bounded.

    Raises:
        GaveUp: it was not there whole within the bound.
        Exception: what the object store's package raises for what is final.
    """
    step = range_bytes or RANGE_BYTES
    # One request: a range would cost the same and bind a thread of the pool.
    if size_bytes <= step:

        def ask() -> bytes:
            data = bytes(system.cat_file(path))
            if len(data) != size_bytes:
                raise Torn(
                    f"{len(data):,} bytes came where its manifest says {size_bytes:,}"
                )
            return data

        yield retry(ask, what=what, is_read=True)
        return
    fetched: deque[Future[bytes]] = deque()
    pool = _ranges()
    bounds = (
        (start, min(start + step, size_bytes)) for start in range(0, size_bytes, step)
    )
    try:
        for start, stop in bounds:
            fetched.append(
                pool.submit(as_here(read_range), system, path, start, stop, what=what)
            )
            # Half of the pool at most for one object, so that a second one can move
            # beside it.
            if len(fetched) == RANGES_AT_ONCE // 2:
                yield fetched.popleft().result()
        while fetched:
            yield fetched.popleft().result()
    # The consumer may stop early; ranges that have not begun must not be fetched for
    # nobody.
    finally:
        for future in fetched:
            future.cancel()
