"""What nobody has caught: one sentence with a short reference, and the traceback in a file of the user's own.

A refusal of the operating system (memory, the size of files, a full disk, too many open files) is no defect
of ours: it is told as what was refused, and what to do. All else is a defect. Its traceback, without
credentials, goes to `crashes/P-xxxxxx.txt` below `PENSTOCK_CACHE` (or `~/.cache/penstock`), where this user
alone may read it; the same defect has the same reference. It is no excuse for a traceback on a user's
mistake: those have sentences where they are found.

It imports next to nothing: what is told when memory is out must be there already.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock._version import __version__
from penstock.core.caches import cache_folder
from penstock.core.errors import PenstockError, StoreError, UserError
from penstock.core.redact import redacted, redacted_words

_MOST_FILES = 50
# An error may carry a whole array's text; searching and writing stay bounded.
_MOST_CHARACTERS = 200_000
# By name, since the classes of Arrow, torch and DuckDB are not imported here.
_MEMORY_NAMES = (
    "MemoryError",
    "ArrowMemoryError",
    "OutOfMemoryError",
    "OutOfMemoryException",
)
# In lower case; libraries wrap such a refusal in a RuntimeError with only words to tell
# it by.
_MEMORY_WORDS = (
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "can't start new thread",
    "failed to allocate",
    "failed to map segment",
    "resource temporarily unavailable",
    "not enough memory",
    "out of memory",
    "unable to allocate",
    "thread constructor failed",
)
_SIZE_WORDS = ("file too large",)
_FULL_WORDS = ("no space left on device", "disk quota exceeded")


@dataclass(frozen=True)
class Told:
    """How an error is printed: its class, the sentence, the exit code, and the
    reference of a defect.
    """

    name: str
    message: str
    exit_code: int
    reference: str | None = None


def tell(error: BaseException) -> Told:
    """Turn an error that is no `PenstockError` of the user's into a sentence and an
    exit code. The traceback of a defect is kept in a file.
    """
    refusal = refused(error)
    if refusal is not None:
        return Told(type(refusal).__name__, refusal.message, refusal.exit_code)
    reference, where = keep(error)
    name = type(error).__name__
    sentence = redacted(getattr(error, "message", None) or str(error) or "(no message)")
    # One of ours has a sentence already; the reference is added for the report.
    if isinstance(error, PenstockError):
        return Told(
            name, f"{sentence} ({reference}: {where})", error.exit_code, reference
        )
    message = (
        f"this is a defect of Penstock, not of your input ({reference}): {name}:"
        f" {sentence.rstrip('.')}. {where}"
    )
    return Told(name, message, 1, reference)


def refused(error: BaseException) -> UserError | None:
    """The operating system's refusal behind an error, as a sentence; None where there is none."""
    # The system's refusal is often the cause, or context, of what a library raised.
    chain = list(_chain(error))
    text = " ".join(f"{type(one).__name__} {one}" for one in chain).lower()[
        :_MOST_CHARACTERS
    ]
    codes = {one.errno for one in chain if isinstance(one, OSError)}
    names = {type(one).__name__ for one in chain}
    # Under a limit of addresses, extensions of Python fail without saying why.
    is_starved = "error return without exception set" in text and bool(
        _limit("RLIMIT_AS", "v")
    )
    if (
        is_starved
        or names & set(_MEMORY_NAMES)
        or errno.ENOMEM in codes
        or any(word in text for word in _MEMORY_WORDS)
    ):
        return UserError(f"memory ran out{_limit('RLIMIT_AS', 'v')}. {_memory_advice()}")
    # Both code and words: some libraries drop the errno on the way.
    if errno.EFBIG in codes or any(word in text for word in _SIZE_WORDS):
        return StoreError(
            f"A file would be larger than the system allows{_limit('RLIMIT_FSIZE', 'f')}."
            " Raise that limit."
        )
    if codes & {errno.ENOSPC, errno.EDQUOT} or any(word in text for word in _FULL_WORDS):
        return StoreError(
            f"the disk is full{_where(chain)}. Free some space, or put the store elsewhere with --store."
        )
    if codes & {errno.EMFILE, errno.ENFILE}:
        return UserError(
            f"too many files are open at once{_limit('RLIMIT_NOFILE', 'n')}. Raise that limit."
        )
    # A missing file alone is the caller's matter; a missing working directory explains
    # it.
    if errno.ENOENT in codes and not _has_folder():
        return UserError(
            "The working directory was removed or moved by another program. Change to an"
            " existing one, and run the command again."
        )
    if errno.EROFS in codes:
        return StoreError(
            f"The output is on a read-only file system{_where(chain)}. Write elsewhere."
        )
    if errno.EIO in codes:
        return StoreError(
            f"The disk reports an error{_where(chain)}. Check it, then run the command"
            " again."
        )
    return None


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def starved(least_bytes: int) -> UserError | None:
    """The error that refuses a command under a limit of addresses (`ulimit -v`) below
    `least_bytes`; None where the limit is high enough.

    Libraries that are denied memory end the process themselves, without an error.
    """
    try:
        import resource  # not on every system

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, AttributeError, OSError):
        return None
    if soft == resource.RLIM_INFINITY or soft >= least_bytes:
        return None
    return UserError(
        f"This process may map {soft / 2**20:,.0f} MiB of addresses (ulimit -v),"
        f" but the command needs {least_bytes / 2**20:,.0f}, because its libraries"
        " map more than they use. Raise that limit; use resources.memory to limit"
        " memory."
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    # Bounded and without repeats: a chain of causes may be a circle.
    errors: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in errors and len(errors) < 8:
        errors.append(one)
        # As Python prints it: `from None` hides the context.
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    yield from errors


def _limit(name: str, letter: str) -> str:
    """The limit `name` of this process as the end of a sentence, with its letter in
    `ulimit`; empty where there is none.
    """
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource  # not on every system

        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            # Files are counted; addresses and sizes of files are bytes.
            amount = f"{soft:,}" if letter == "n" else f"{soft / 2**20:,.0f} MiB"
            return f" (this process is limited to {amount}: ulimit -{letter})"
    return ""


def _memory_advice() -> str:
    limited = bool(_limit("RLIMIT_AS", "v"))
    first = "Raise that limit" if limited else "Close other programs"
    return (
        f"{first}, or ask for less: a lower resources.memory, a smaller train.batch_size, fewer processes or"
        " threads."
    )


def _where(chain: list[BaseException]) -> str:
    names = [
        str(one.filename) for one in chain if isinstance(one, OSError) and one.filename
    ]
    return f" while {redacted(names[0])} was written" if names else ""


def keep(error: BaseException) -> tuple[str, str]:
    """Keep the traceback in a file.

    Returns:
        The reference, such as `P-1a2b3c`; and a sentence that says where the file is, or why there is none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    # Lines' text, not numbers: an edit above does not change a defect's reference.
    marks = [f"{Path(frame.filename).name}:{frame.name}:{frame.line}" for frame in frames]
    digest = hashlib.sha256(
        "\n".join([type(error).__name__, *marks]).encode("utf-8", "replace")
    ).hexdigest()
    reference = f"P-{digest[:6]}"
    text = _report(error, reference)
    why = ""
    # The second folder is for homes that are read-only or missing.
    for folder in _folders():
        try:
            path = _write(folder, f"{reference}.txt", text)
        except (
            OSError,
            RuntimeError,
        ) as trouble:  # RuntimeError: there is no home folder
            why = why or str(trouble)
            continue
        return reference, f"Its traceback is in {path}; please report it with that file."
    return (
        reference,
        (
            f"Its traceback could not be kept ({redacted(why)}). Set PENSTOCK_CACHE to a folder you may"
            " write to."
        ),
    )


def _report(error: BaseException, reference: str) -> str:
    command = " ".join(redacted_words(sys.argv))
    # Cut from the front: the last frames say what failed.
    trace = redacted("".join(traceback.format_exception(error))[-_MOST_CHARACTERS:])
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return (
        f"{reference}  {when}\npenstock {__version__}, Python {platform.python_version()},"
        f" {platform.platform()}\ncommand: {command[:2000]}\n\n{trace}"
    )


def _folders() -> Iterator[Path]:
    with contextlib.suppress(RuntimeError):
        yield cache_folder() / "crashes"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"penstock-{user}-crashes"


def _write(folder: Path, name: str, text: str) -> Path:
    """Write a file that only this user may read, in a folder that only this user may enter."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or (
        hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()
    ):
        # in a folder for all, somebody may lie in wait
        raise OSError(errno.EPERM, "the folder is another's", str(folder))
    folder.chmod(0o700)
    path = folder / name
    # The old report goes, so that O_EXCL and O_NOFOLLOW can refuse a planted file or
    # link.
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with open(
        os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    # Oldest first; a crash in a loop must not fill the disk.
    files = sorted(folder.glob("P-*.txt"), key=lambda one: one.stat().st_mtime)
    for old in files[:-_MOST_FILES]:
        old.unlink(missing_ok=True)
    return path
