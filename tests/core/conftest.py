"""What tests of the ground floor share."""

from __future__ import annotations

import pytest

from penstock.core import credentials, secret_values


@pytest.fixture
def forgetful(monkeypatch):
    """Each test knows no secret but its own."""
    monkeypatch.setattr(secret_values, "_values", secret_values.Values())
    monkeypatch.setattr(secret_values, "_environment_seen", float("-inf"))
    monkeypatch.setattr(credentials, "_of_bucket", {})
    monkeypatch.setattr(credentials, "_options", {})
