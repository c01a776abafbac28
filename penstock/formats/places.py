"""Where a file lies, and its bytes: on this machine, or at any URL that fsspec knows.

All refusals of an operating system or a cloud become one sentence here (`plainly`). Credentials come from
where each cloud's own tools look for them (environment, profile, instance role); a recipe has no place for
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from penstock.core import objects
from penstock.core.errors import SourceError
from penstock.core.optional import require
from penstock.core.regular import open_regular
from penstock.core.remote import reach
from penstock.core.remote_errors import explain, first_line
from penstock.core.store import refusals
from penstock.formats.archive_names import member_place

# By protocol: the module that fsspec needs, and the extra that installs it.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "az": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}


def is_remote(url: str) -> bool:
    """Whether `url` is no path on this machine's disk: it lies in a bucket, on another machine, or within an
    archive.
    """
    if member_place(url) is not None:
        return True
    return "://" in url and not url.startswith("file://")


@contextmanager
def plainly(url: str) -> Iterator[None]:
    """Turn refusals of the system or of a cloud into a `SourceError` of one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        # A missing bucket, or a server that does not answer, is a FileNotFoundError in
        # some packages: neither means that the file is gone.
        if not objects.is_absent(error):
            raise SourceError(f"cannot read {url}: {explain(error, url)}") from None
        raise SourceError(f"there is no {url}. ({first_line(error)})") from None
    except PermissionError as error:
        raise SourceError(
            f"{url} cannot be read: {first_line(error)}. Grant yourself permission, or"
            " use other credentials."
        ) from None
    except refusals() as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        # Each cloud's package raises a class of its own here; the word is what they
        # share.
        if "credential" in reason.lower():
            raise SourceError(
                f"{url} needs credentials, and none were found ({reason}). Set them as the cloud's own tools"
                " expect, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://."
            ) from None
        raise SourceError(f"cannot read {url}: {reason}") from None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        MissingPackage: the protocol's package is not installed.
        SourceError: there is no such protocol.
    """
    protocol = url.split("://", 1)[0]
    if protocol in _PACKAGES:
        module, extra = _PACKAGES[protocol]
        require(module, extra=extra, why=f"reading {protocol}:// URLs")
    try:
        with plainly(url):
            # Code of others reads through this file system, beyond our own retries, so
            # it tries again by itself.
            system, path = reach(url, patient=True)
    except ImportError as error:
        raise SourceError(
            f"{url}: reading {protocol}:// needs more than is installed: {first_line(error)}"
        ) from None
    except ValueError as error:
        raise SourceError(
            f"{url}: {first_line(error)}. Known protocols include s3, gs, abfs, hdfs, memory."
        ) from None
    return system, path


def open_bytes(url: str) -> BinaryIO:
    """Open a file, and no member of an archive, for reading; it can be sought."""
    with plainly(url):
        if is_remote(url):
            system, path = filesystem(url)
            # Each request to a bucket costs a round trip, so at least 4 MiB are asked
            # for.
            return system.open(path, "rb", block_size=4 << 20)  # type: ignore[no-any-return]
        return open_regular(url)
