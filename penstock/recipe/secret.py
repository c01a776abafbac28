"""Takes the secrets out of a recipe before it is written, and puts them in again when
it is read.

Credentials in URLs are blanked as `https://me:***@host/…`, and `core.credentials` finds them where the URL is
reached. An option of somebody's own part whose name tells of a secret (`model.arguments.api_key`) is blanked
as well; its value is in the environment, as `PENSTOCK_SECRET_API_KEY`, when the recipe is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.credentials import forget_option, option_again
from penstock.core.redact import BLANK, is_secret_name, redacted_url

_NAMES = frozenset(
    {
        "class_weights",
        "columns",
        "decoders",
        "derive",
        "encoders",
        "expect",
        "inputs",
        "load",
        "on",
        "rename",
        "targets",
        "trim_end",
        "types",
        "weights",
    }
)
"""Words of a recipe below which the user's own names stand: a column may be called `token`."""


def without_secrets(declared: Any, *, below: str = "") -> Any:
    """Return what is declared with its secrets blanked: the same for every password."""
    if isinstance(declared, str):
        # Any text may hold a URL with a password.
        return redacted_url(declared)
    if isinstance(declared, Mapping):
        return {name: _without(name, value, below) for name, value in declared.items()}
    if isinstance(declared, (list, tuple)):
        return [without_secrets(item, below=below) for item in declared]
    return declared


def _without(name: Any, value: Any, below: str) -> Any:
    if (
        isinstance(value, str)
        and value
        and value != BLANK
        # Below these words stand the user's own names, such as a column called `token`.
        and below not in _NAMES
        and is_secret_name(str(name))
    ):
        return forget_option(str(name), value)
    return without_secrets(value, below=str(name))


def remember_secrets(declared: Mapping[str, Any]) -> None:
    """Keep the secrets of a recipe that the user gave, so that this process finds them again where they were
    blanked on the way from another process of the same training.
    """
    without_secrets(declared)  # blanking one remembers it


def with_secrets(declared: Any, *, strict: bool, below: str = "") -> Any:
    """Return what is declared with the blanked options filled in from the environment.

    Args:
        strict: one that is not in the environment is refused; it stays blank otherwise.

    Raises:
        UserError: the environment lacks one; says which.
    """
    if isinstance(declared, Mapping):
        return {
            name: _with(name, value, below, strict) for name, value in declared.items()
        }
    if isinstance(declared, (list, tuple)):
        return [with_secrets(item, strict=strict, below=below) for item in declared]
    return declared


def _with(name: Any, value: Any, below: str, strict: bool) -> Any:
    if value == BLANK and below not in _NAMES and is_secret_name(str(name)):
        return option_again(str(name), strict=strict)
    return with_secrets(value, strict=strict, below=str(name))
