from __future__ import annotations

import pytest

from tests.bundle import made


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A bundle and its store."""
    return made.shared(tmp_path_factory)


@pytest.fixture(scope="session")
def bundle(packed):
    return packed[0]
