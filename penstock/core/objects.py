"""What an object store has, asked so that a refusal is an error and never an empty answer.

The questions of fsspec (`exists`, `isfile`, `glob`, `find`) answer "no" and "nothing" where a bucket cannot
be reached or refuses: whoever believes them says that an artefact is not there, or makes it again. Here only
what is truly absent is.

What this file refuses to know: who asks, how often, and what the names mean.
"""

from __future__ import annotations

from typing import Any

from penstock.core.remote_errors import answer_of, causes_of, transient

# Not found, and gone for good.
_GONE = (404, 410)


def is_absent(error: BaseException) -> bool:
    """Whether an error says that an object is not there, and nothing else: not that its bucket is not, or
    that nobody answers.
    """
    # Some packages raise it for timeouts as well, which pass.
    if not isinstance(error, FileNotFoundError) or transient(error):
        return False
    answers = [answer_of(cause) for cause in causes_of(error)]
    return all(
        # Every cause must agree: a missing bucket also has the status 404.
        status in (None, *_GONE) and code != "NoSuchBucket"
        for status, code in answers
    )


def info(system: Any, path: str) -> dict[str, Any] | None:
    """What is known of an object or a folder; None where there is neither.

    Raises:
        Exception: whatever the store's package raises where it cannot be asked.
    """
    try:
        return dict(system.info(path))
    except FileNotFoundError as error:
        if is_absent(error):
            return None
        raise


def is_file(system: Any, path: str) -> bool:
    """Whether there is an object. `Raises` as `info`."""
    entry = info(system, path)
    return entry is not None and entry["type"] == "file"


def entries(system: Any, folder: str) -> list[dict[str, Any]]:
    """What lies in a folder, one level deep; nothing where there is none. `Raises` as `info`."""
    try:
        return [
            entry
            for entry in system.ls(folder, detail=True)
            # Many stores list the folder itself among what lies in it.
            if str(entry["name"]).strip("/") != folder.strip("/")
        ]
    except FileNotFoundError as error:
        if is_absent(error):
            return []
        raise


def matching(system: Any, pattern: str, root: str) -> dict[str, dict[str, Any]]:
    """What matches a pattern below the folder `root`, by name. `Raises` as `info`."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    glob = getattr(type(system), "_glob", None) or type(system).glob
    # others (HTTP's) hand what they do not know to the network
    is_usual = glob in (AbstractFileSystem.glob, AsyncFileSystem._glob)
    # s3fs walks to a given depth only
    # `on_error` is understood where fsspec's own walk or s3fs's does the work.
    walks = (is_usual and _walks(system)) or (
        "**" not in pattern and "s3" in system.protocol
    )
    try:
        matches = dict(
            system.glob(pattern, detail=True, **({"on_error": "raise"} if walks else {}))
        )
    except FileNotFoundError as error:
        if not is_absent(error):
            raise
        return {}
    if not matches:
        entries(system, root)  # nothing, or nobody who answers
    return matches


def _walks(system: Any) -> bool:
    """Whether its listings go folder by folder as fsspec's own do, which leave out those that fail unless
    told otherwise.
    """
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    find = getattr(type(system), "_find", None) or type(system).find
    return find in (AbstractFileSystem.find, AsyncFileSystem._find)


def below(system: Any, folder: str) -> dict[str, dict[str, Any]]:
    """Every object below a folder, by its name; nothing where there is none. `Raises` as `info`."""
    try:
        return dict(
            # Without `raise`, a folder that cannot be listed would count as an empty
            # one.
            system.find(
                folder, detail=True, **({"on_error": "raise"} if _walks(system) else {})
            )
        )
    except FileNotFoundError as error:
        if is_absent(error):
            return {}
        raise
