"""Optional packages, imported when first needed; an absent one is a sentence that says what to install and
why.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from penstock.core.errors import MissingPackage


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import `module`, which belongs to the extra `extra`.

    Args:
        module: dotted name, such as `torch.onnx`.
        extra: the extra of Penstock that brings it, such as `train`.
        why: what the user asked for that needs it, as in "training a model".

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.split(".")[0]
        if (error.name or "").split(".")[0] != top:
            raise
        raise MissingPackage(
            f"{why} needs the package {top!r}, which is not installed. Install it with:  pip install"
            f" 'penstock[{extra}]'"
        ) from None
