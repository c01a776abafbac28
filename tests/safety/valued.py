"""Moments that tests of values write in many ways."""

from __future__ import annotations

from datetime import datetime

DAY = datetime(2024, 1, 5)
NOON = datetime(2024, 1, 6, 12, 30)
