"""What several of these files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import faulty_s3


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def shared_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store that child processes see, too."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line.store
