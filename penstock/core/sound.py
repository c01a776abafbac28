"""What an artefact says of itself is read within `sound`: its checksums may be right, and what it says may
still be anything.

Checksums and ids show damage; whoever makes an artefact can compute them. So whatever reading it raises is a
sentence: that it does not fit together, where, and what to do. Two things are not: what the system refuses,
which has its own sentences, and an error of code that the artefact brought and its user trusts, which keeps
its traceback.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import PenstockError, StoreError
from penstock.core.visible import visible

_LIBRARIES = ("onnxruntime", "safetensors", "pyarrow")
"""Whose errors have no base class of Python's that says what they are."""
# Characters: an artefact from elsewhere may have errors of any length.
_MOST_WORDS, _MOST = 200, 2_000


@contextmanager
def sound(
    where: str,
    *,
    of: type[PenstockError] = StoreError,
    advice: str = "Fetch it again, or make it again",
    own: Path | None = None,
) -> Iterator[None]:
    """Turn what reading an artefact raises into one sentence, while the body reads it.

    Args:
        where: which, as the sentence shows it.
        of: the error that tells it.
        advice: what to do.
        own: a folder of code that came with it and is trusted.

    Raises:
        PenstockError: one of `of`, instead of whatever reading it raised.
    """
    try:
        yield
    # One of ours has a sentence already; only its length is bounded.
    except PenstockError as error:
        if isinstance(error, of) and len(error.message) > _MOST:
            raise of(_short(error.message, _MOST)) from None
        raise
    except OSError as error:
        if (
            error.errno is not None
        ):  # the system's; Arrow's own, of damaged files, have none
            raise
        raise _told(error, where, of, advice) from error
    # What reading malformed data raises; anything else is a defect, and keeps its
    # traceback.
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # The user's own code failed, not the artefact: its traceback is what helps.
        if own is not None and _is_within(error, own):
            raise
        raise _told(error, where, of, advice) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise _told(error, where, of, advice) from error


def _told(
    error: Exception, where: str, of: type[PenstockError], advice: str
) -> PenstockError:
    # On one line: an error may carry a multi-line dump.
    reason = _short(" ".join(str(error).split())) or "no more is known"
    return of(
        f"{where} cannot be read: what it says does not fit together ({type(error).__name__}: {reason}). "
        f"It was not written by Penstock, or was changed since. {advice}."
    )


def _is_within(error: Exception, folder: Path) -> bool:
    """Whether code in a folder was at work when it was raised."""
    return any(
        folder in Path(frame.filename).parents
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _short(text: str, longest: int = _MOST_WORDS) -> str:
    return visible(text if len(text) <= longest else f"{text[:longest]}…")


def object_in(file: Path) -> dict[str, Any]:
    """What a JSON file of an artefact holds; read within `sound`.

    Raises:
        TypeError: it is no JSON object.
        ValueError, RecursionError: it is not there, or is no JSON.
    """
    # Asked first: the system's own error would pass through `sound` as it is.
    if not file.is_file():
        raise ValueError(f"it has no {file.name}")
    document = json.loads(file.read_text("utf-8"))
    if not isinstance(document, dict):
        raise TypeError(f"{file.name} is no JSON object")
    return document


def number_of(number: object) -> int:
    """A format's number; what is no number counts as newer than every format."""
    return number if isinstance(number, int) else 2**31
