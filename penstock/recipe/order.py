"""The words of `train.order`: which order rows come in, how often; `loader.resolve_order` acts on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from penstock.contracts.data import Feature
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem
from penstock.core.near import did_you_mean


class Mix(Strict):
    """Rows drawn by the values of a column."""

    by: str
    """A column of the data; it need be no input."""
    weights: dict[str, float] = Field(min_length=1)
    """How often each of its values is drawn, as a share of all these numbers together; 0 leaves its rows out.

    Every value that the training split has must be named.
    """

    @model_validator(mode="after")
    def _drawable(self) -> Mix:
        odds = self.weights.values()
        if not all(math.isfinite(share) and share >= 0 for share in odds) or not any(
            odds
        ):
            raise mistakes(
                Problem(
                    ("weights",),
                    "must be numbers from 0, and one above 0; found"
                    f" {', '.join(f'{share:g}' for share in odds)}",
                )
            )
        return self


class TrainOrder(Strict):
    """In which order the training split's rows come, and how often.

    All of it is exact, and resumed at any batch.

    Each row comes once an epoch, unless `replacement`, `weights`, `balance` or `mix` says that rows are
    drawn.
    """

    shuffle: Literal["auto", "full", "blocks", "stored"] = "auto"
    """`full`: all rows among one another; `blocks`: blocks of rows, and the rows within a window of blocks;
    `stored`: as they lie. `auto`: `full` up to 4 GiB of training shards and `blocks` beyond, since reading
    rows from everywhere then means reading from the disk; it depends on the data alone, never on the machine.
    """
    block: int | Literal["auto"] = "auto"
    """Rows of a block. `auto`: those of a shard."""
    window: int = Field(16, ge=1)
    """Blocks whose rows are mixed; an epoch begins with windows of 1, 2, 4, … blocks, so that the first batch
    comes soon.
    """
    last: Literal["keep", "drop", "wrap"] = "keep"
    """A last batch that is not full: shorter (`keep`), left out (`drop`), or filled up with rows of the
    epoch's beginning (`wrap`).
    """
    fraction: float | None = Field(None, gt=0, le=1)
    """Train on this share of the rows, the same in all epochs; all of them unless given."""
    replacement: bool = False
    """Draw each row anew from all rows, so that one may come several times an epoch and another not at
    all.
    """
    weights: str | None = None
    """A column of numbers from 0: rows are drawn with replacement, as often as this says."""
    balance: str | None = None
    """A category or binary target or input: its classes are drawn equally often."""
    mix: Mix | None = None
    """The values of a column are drawn by weights: `{by: language, weights: {en: 0.7, de: 0.3}}`."""
    epoch_rows: int | None = Field(None, ge=1)
    """Rows of an epoch, where rows are drawn; as many as there are unless given."""
    bucket: StrictBool | Annotated[int, Field(ge=2)] = False
    """Put texts (and sets and sequences) of like length into one batch, so that less of it is padding: among
    the rows of so many batches; true is 32. Batches come in an order of chance, and each row as often as
    without.
    """

    @property
    def draws(self) -> str | None:
        """Return the word by which rows are drawn; None if each comes once."""
        return next(
            (
                word
                for word in ("mix", "balance", "weights", "replacement")
                if getattr(self, word)
            ),
            None,
        )

    def an_epoch(self, rows: int) -> int:
        """Return the rows of an epoch of a split of `rows` rows (those of a value that
        `mix` leaves out included).
        """
        # A fraction of a split that has rows leaves one row at least.
        return self.epoch_rows or (
            max(round(rows * self.fraction), 1) if self.fraction and rows else rows
        )

    def problems(
        self, features: Mapping[str, Feature], weight: str | None, *, sampled: bool
    ) -> list[Problem]:
        """Return problems of words that name what the recipe's features lack, or that
        exclude the recipe's `weight`.
        """
        problems = []
        able = [
            name
            for name, feature in features.items()
            if feature.type in ("category", "binary")
        ]
        # A recipe without features cannot be judged yet.
        if self.balance and features and self.balance not in able:
            text = (
                f"is {self.balance!r}, which is no category or binary"
                f" feature.{did_you_mean(self.balance, able)} Those are: {', '.join(able) or 'none'}"
            )
            problems.append(Problem(("train", "order", "balance"), text))
        # Drawn more often and weighed more, a row would count by the square.
        if self.weights and self.weights == weight:
            text = (
                f"is {self.weights!r}, which is the recipe's `weight` too: each row would be drawn more often"
                " and count more as well. Keep one of them"
            )
            problems.append(Problem(("train", "order", "weights"), text))
        for word in ("weights", "mix"):
            if sampled and getattr(self, word):
                problems.append(
                    Problem(
                        ("train", "order", word),
                        "is for rows, and here a sample is made of many rows (`samples`)",
                    )
                )
        return problems

    @model_validator(mode="after")
    def _meant(self) -> TrainOrder:
        problems: list[Problem] = []
        # Each of them says how often a row comes, so only one can hold.
        drawn = [word for word in ("mix", "balance", "weights") if getattr(self, word)]
        if len(drawn) > 1:
            problems.append(
                Problem(
                    (drawn[1],),
                    f"and `{drawn[0]}` both say how often a row is drawn; keep one of them",
                )
            )
        if self.replacement and drawn and drawn[0] != "weights":
            problems.append(
                Problem(
                    ("replacement",),
                    f"cannot be combined with `{drawn[0]}`, which draws every row of a group once"
                    " before any comes twice. Leave one of them out",
                )
            )
        # Without drawing an epoch is every row once, however many there are.
        if self.epoch_rows is not None and not self.draws:
            problems.append(
                Problem(
                    ("epoch_rows",),
                    "is for rows that are drawn (`replacement`, `weights`, `balance`, `mix`); otherwise an"
                    " epoch has each row once. `fraction` takes fewer rows, `train.max_steps` stops earlier",
                )
            )
        # Drawing each row from all rows leaves no blocks to shuffle.
        if self.draws in ("weights", "replacement") and self.shuffle != "auto":
            problems.append(
                Problem(
                    ("shuffle",),
                    f"is {self.shuffle!r}, but `{self.draws}` draws rows at random from all rows."
                    " Leave one of the two out",
                )
            )
        if self.bucket and self.shuffle == "stored":
            problems.append(
                Problem(
                    ("bucket",),
                    "changes the order of rows, which `shuffle: stored` keeps; leave one of the two out",
                )
            )
        # Only words that differ from their defaults contradict the others.
        moved = [
            word
            for word, usual in (("block", "auto"), ("window", 16))
            if getattr(self, word) != usual
        ]
        if moved and (
            self.shuffle in ("full", "stored") or self.draws in ("weights", "replacement")
        ):
            problems.append(
                Problem((moved[0],), "is for `shuffle: blocks`, which this is not")
            )
        if isinstance(self.block, int) and self.block < 1:
            problems.append(
                Problem(("block",), f"must be at least 1 row; found {self.block}")
            )
        if problems:
            raise mistakes(*problems)
        return self
