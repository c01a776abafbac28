"""A model that is good, judged once for all files."""

from __future__ import annotations

import pytest

from penstock.core.events import Events
from penstock.evaluate import evaluate
from tests.evaluate.judged import INPUTS, PAY, Model, Rows, fitted, knows, people, recipe


@pytest.fixture(scope="package")
def good():
    train, test = people(3_000, 1), people(1_500, 2)
    data = Rows(train=train, validation=people(200, 3), test=test)
    model = Model(fitted(INPUTS, PAY, train), knows)
    said = []
    return evaluate(model, data, recipe(slices=["city"]), Events(said.append)), test, said
