"""Words about whose data it is: consent, retention, and how many people a row must be alike."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem
from penstock.recipe.identifiers import Names


class Consent(Strict):
    """Rows without consent never enter: they are counted as filtered."""

    column: str = Field(min_length=1)
    """Where the consent stands."""
    values: tuple[str | int | float | bool, ...] = Field((True,), min_length=1)
    """What means yes; anything else, and a missing value, means no."""


class Retention(Strict):
    """Rows past their time leave at the next version: they are counted as filtered."""

    column: str = Field(min_length=1)
    """The date or time from which a row may be kept for so long; a row without one leaves."""
    days: int = Field(ge=1)
    """How long, in days of 24 hours."""
    as_of: Literal["today"] | datetime.date
    """The day it is judged on (the row must be younger than `days` at its beginning, in UTC). `today`
    becomes the date in what is recorded, so that a run can be repeated as it was.
    """

    @field_validator("as_of", mode="after")
    @classmethod
    def _dated(cls, day: str | datetime.date) -> datetime.date:
        # The clock is read once, where the recipe is; from there on it is a date like any other.
        if isinstance(day, str):
            return datetime.datetime.now(datetime.UTC).date()
        return day


class Anonymity(Strict):
    """k-anonymity (Sweeney 2002) and l-diversity (Machanavajjhala et al. 2007) of what is left.

    Judged after `private`, over all rows; rows of groups that are too small, or too alike, are suppressed:
    counted as filtered, and listed by number in the dataset.
    """

    columns: Names = Field(min_length=1)
    """The quasi-identifiers: together they could tell who somebody is."""
    k: int = Field(1, ge=1)
    """At least so many rows share their values of `columns`; 1 measures and suppresses nothing."""
    sensitive: str | None = None
    """What nobody should learn of a person from the group."""
    l: int = Field(1, ge=1)  # noqa: E741 - the field's own name
    """At least so many different values of `sensitive` in each group (distinct l-diversity)."""

    @model_validator(mode="after")
    def _hold_together(self) -> Anonymity:
        problems = []
        if self.l > 1 and self.sensitive is None:
            problems.append(Problem(("l",), "needs the column `sensitive`"))
        if self.sensitive is not None and self.sensitive in self.columns:
            text = f"{self.sensitive!r} is among `columns` as well; each group would have one value of it"
            problems.append(Problem(("sensitive",), text))
        if problems:
            raise mistakes(*problems)
        return self


class Governance(Strict):
    """Whose data it is, and what may be kept of it."""

    consent: Consent | None = None
    """Only rows with consent enter."""
    retention: Retention | None = None
    """Only rows that are young enough enter."""
    anonymity: Anonymity | None = None
    """How many people each row must be alike, after `private`."""
