"""Uninterrupted runs to compare with, one for each number of processes; made when first asked for."""

from __future__ import annotations

import pytest

from tests.matrix.harness import Case


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """reference(2): the run on two processes that nothing happened to."""
    made: dict[int, Case] = {}

    def find(processes: int = 1) -> Case:
        if processes not in made:
            case = Case(
                tmp_path_factory.mktemp("reference"), processes=processes, pause=0.0
            )
            assert case.train().code == 0
            assert case.lost_and_repeated() == (0, 0)
            made[processes] = case
        return made[processes]

    return find
