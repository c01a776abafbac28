from __future__ import annotations

import pytest

from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving
from tests.bundle import made


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return made.shared(tmp_path_factory)[0]


@pytest.fixture(scope="session")
def server(bundle):
    """A server on a free port of the loopback."""
    with Serving(bundle, Serve(port=0), Events()) as running:
        yield running
