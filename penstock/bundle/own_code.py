"""Imports code that came with a bundle, once its user trusts it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from penstock.core.errors import BundleError
from penstock.core.identity import sha256_file


def bring(module: str, file: Path) -> None:
    """Import the bundle's own source as `module`, unless the same source is loaded
    already.
    """
    # Python knows a module by name only: a second content under one name would never be
    # run.
    known = sys.modules.get(module)
    if known is not None:
        source = getattr(known, "__file__", None)
        if (
            source is None
            or not os.path.isfile(source)
            or sha256_file(source) != sha256_file(file)
        ):
            raise BundleError(
                f"the module {module!r} is already loaded with other content than {file}."
                " Open the bundle in another process."
            )
        return
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses, and imports of itself, look the module up.
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except ImportError as error:
        del sys.modules[module]
        raise BundleError(f"{file} imports what is not installed here: {error}") from None
    except BaseException:
        del sys.modules[module]  # half of it is no module that another bundle may find
        raise
