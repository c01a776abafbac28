"""What a feature promises: a raw column (or several) becomes arrays, and a target's answers become columns.

`Feature` is what every one of them does. What only some can do has a contract of its own, and a class takes
as many of them as it keeps. Callers ask `isinstance`: a feature inherits no method that it does not mean.

- `TargetFeature`: may stand under `targets`: its answers are decoded and compared with the truth.
- `DecidingFeature`: a target with something to decide on the validation split, such as thresholds.
- `CollatedFeature`: what is stored is not yet what a batch holds: decode, pad, augment.
- `SequenceFeature`: a row has steps, which a target may label one by one.
- `SeriesFeature`: where rows are steps of series, it reads several steps of a sample.

The way of a row: `accept → encode → collate`, then the program, then `decode`. The very same calls happen in
training, in batch prediction, over HTTP and in streams.

What this file refuses to know: torch, and where rows come from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from penstock.contracts.part import Part
from penstock.contracts.summary import Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import RecipeError


@dataclass(frozen=True)
class Refused:
    """Rows a feature cannot accept."""

    rows: np.ndarray
    """Indices, int64 `[r]`, ascending."""
    reasons: list[str]
    """One a row: what was found and what was expected, without the column's name."""


# Shared by all who refuse nobody, so it must not be changed.
NOBODY = Refused(np.empty(0, np.int64), [])

Stored = dict[str, np.ndarray]
"""Array name → values `[n, …]`; ragged and bytes come as object arrays of numpy arrays or of `bytes` (and
ragged ones as `Ragged` to a feature that `takes_ragged`).
"""

Fitted = dict[str, Any]
"""What a feature learnt from the training split, as plain data (JSON).

`said`, if there, lists choices made aloud.
"""


DOUBT = "doubt"
"""What an ensemble answers beside what every model does: the column `<target>_doubt`."""

_CONTRACT_OF: dict[str, Any] = {}
"""By method, the contract that it belongs to; filled once the contracts are defined."""


class Feature(Part):
    """A raw column (or several) → arrays. numpy and Arrow only; no torch.

    Laws (penstock.testing.laws.features): a row encodes alone as in a batch, bit for bit; halves summarised
    and merged equal the whole; `decode` undoes `encode` for targets; refused rows are refused alone as in a
    batch; the arrays of a batch have the dtypes and shapes of `spec`.
    """

    shelf: ClassVar[str] = "penstock.parts.features"
    encoder: ClassVar[str] = ""
    """The encoder a model uses unless the recipe names another; empty: not usable as an input."""
    canonical: ClassVar[pa.DataType] = pa.string()
    """What `accept` returns and the rest understands; text may keep the dictionary that it came with."""

    column: str | None = None
    """The raw column; the feature's own name unless given."""
    na: tuple[str, ...] = ()
    """Texts that stand for a missing value in this column, such as "Not yet rated"."""
    fitted_from: str | None = Field(None, pattern=r"^bundle-[0-9a-f]{16}$")
    """A bundle in the store whose feature of this name learnt already: what it learnt is taken over, so that
    tokens, edges and classes mean here what they mean there. For encoders that `train.from` takes over.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Refuse a class that writes a method of a contract which it does not take: nobody would call it.

        Raises:
            RecipeError: names the method and the contract.
        """
        super().__pydantic_init_subclass__(**options)
        # The contracts themselves are made while this is empty, and so pass.
        for method, contract in _CONTRACT_OF.items():
            if method in cls.__dict__ and not issubclass(cls, contract):
                raise RecipeError(
                    f"the feature class {cls.__module__}.{cls.__qualname__} has a method {method!r}, which is"
                    f" called of a {contract.__name__} only. Derive the class from"
                    f" penstock.contracts.features.{contract.__name__} as well"
                )

    def columns(self, name: str) -> tuple[str, ...]:
        """The raw columns that the feature called `name` reads."""
        return (self.column or name,)

    def has_comma(self) -> bool:
        """Whether it reads texts as numbers with a decimal comma."""
        return False

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        """Why it cannot be an input (a target) as it is declared, or None.

        Args:
            sampled: whether rows are steps of series (the recipe's `samples`).
        """
        return None

    def row_bytes(self) -> int:
        """About how much memory one row takes, raw and accepted: pieces of rows are cut so that memory stays
        bounded.
        """
        return 64

    @abstractmethod
    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        """Raw columns of whatever type, as one canonical column `[n]` (null = missing), and the rows that
        cannot be.

        Refused rows hold null. A row's acceptance depends on that row alone.
        """

    @abstractmethod
    def summary(self) -> Summary:
        """What must be learnt from the training split's canonical column."""

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        """The summary's result as fitted facts. May add `said`.

        Raises:
            ContractError: nothing can be learnt from it (a target with one class, a column that is always
                missing).
        """
        return result

    def strange(self, column: pa.Array, fitted: Fitted) -> Refused:
        """Rows of an input's canonical column with a value that nobody knows how to take once it is fitted: a
        third value of a `binary`. Of none, unless a feature says so: what was never seen is mostly taken as
        unknown.
        """
        return NOBODY

    @abstractmethod
    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        """The arrays of a batch: what the model will see."""

    def encoder_for(self, spec: Mapping[str, TensorSpec]) -> str:
        """The encoder a model uses for these arrays of it, unless the recipe names another: where fitting has
        found that another suits the data better than the usual one.
        """
        return self.encoder

    @abstractmethod
    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        """Canonical column `[n]` → stored arrays, row by row, vectorised.

        Unless the feature is a `CollatedFeature`, a batch holds them as they are stored.
        """


class CollatedFeature(Feature):
    """A feature whose stored rows become a batch by work of their own: pictures are decoded, texts padded,
    pixels augmented.
    """

    takes_ragged: ClassVar[bool] = False
    """Whether `collate` also understands ragged arrays as `penstock.contracts.ragged.Ragged`, which spares an
    object a row.
    """

    def decodes(self) -> bool:
        """Whether `collate` is enough work for several threads, and lets go of the interpreter lock in it:
        decoding pictures is, padding texts is not. A loader then has a thread for each core.
        """
        return False

    def augments(self) -> bool:
        """Whether `collate` does anything with keys; making them is spared where none does."""
        return True

    @abstractmethod
    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Stored rows → arrays for a batch: decode, pad; augment only if given one uint64 key a row.

        Law: equal where not masked, whatever else is in the batch.
        """


class TargetFeature(Feature):
    """A feature that a model may also be asked for: its answers become columns in the user's words."""

    decoder: ClassVar[str] = ""
    """The decoder a model uses unless the recipe names another: every target has one."""
    answers: ClassVar[tuple[str, ...]] = ("", "probabilities")
    """The words of `decode` that it may answer with: `""` is the column `<target>`, the others
    `<target>_<word>`.
    """

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        """Rows of the canonical column that cannot be learnt or judged: a class never seen in the training
        split.
        """
        return NOBODY

    @abstractmethod
    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """Stored rows as metrics want them `[n, …]`: class indices, or numbers in the user's units."""

    def judged(
        self, answers: Mapping[str, np.ndarray], fitted: Fitted
    ) -> Mapping[str, np.ndarray]:
        """Answers as metrics want them: as they are, unless only their decoded form can be compared with the
        truth.
        """
        return answers

    @abstractmethod
    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        """Answers → columns in the user's words: `""` the prediction, `"probabilities"` and the like beside
        it.

        Args:
            arrays: what the decoder's `answer` gives, by name.
            decision: what was decided after training for this target, such as `{"threshold": 0.5}`; may be
                empty.
        """

    def doubt(self, values: np.ndarray, fitted: Fitted) -> pa.Array:
        """What the members of an ensemble differ by (`Decoder.doubt`, `[n]`) as a column of float64, in the
        units of the answer.
        """
        return pa.array(np.asarray(values, np.float64))

    def labels_steps_of(self) -> str | None:
        """The input whose steps it labels one by one (a `SequenceFeature`); None: it says one thing of a
        row.
        """
        return None


class DecidingFeature(TargetFeature):
    """A target that needs something decided once the model is trained: with which threshold it answers."""

    @abstractmethod
    def decide(
        self,
        answers: Mapping[str, np.ndarray],
        truth: np.ndarray,
        weight: np.ndarray | None,
        fitted: Fitted,
    ) -> dict[str, Any]:
        """What `decode` is given as `decision`, from the validation split, as plain data.

        Args:
            answers: of the model, by name `[n, …]`.
            truth: what `truth` gives for the same rows.
            weight: float32 `[n]`; None where rows are not weighted.
        """


class SequenceFeature(Feature):
    """A feature whose rows have steps (words, items), so that a target may have a label for each."""

    @abstractmethod
    def steps(self, column: pa.Array) -> np.ndarray | None:
        """How many steps each row of its canonical column has, before any is cut off, int64 `[n]`; None: as
        it is declared, its rows have no steps that could be labelled.
        """


class SeriesFeature(Feature):
    """A feature that reads several steps of a sample where a row is a step of a series (the recipe's
    `samples`).

    Every other feature reads one value of a sample: an input the one at the last known step, a target the one
    at the anchor, which is the first step that is not known yet.
    """

    @abstractmethod
    def reach(self, *, target: bool) -> tuple[int, int]:
        """The steps that it reads of a sample, as offsets `[start, stop)` from the anchor."""

    @abstractmethod
    def whole(self, name: str) -> Self:
        """The feature as requests know it: the steps of a sample in one raw column, called as the feature
        is.
        """

    @abstractmethod
    def step(self) -> Self:
        """The feature of a single step, fitted and encoded as the whole is, step by step."""


_CONTRACT_OF |= {
    "collate": CollatedFeature,
    "truth": TargetFeature,
    "decode": TargetFeature,
    "doubt": TargetFeature,
    "decide": DecidingFeature,
    "steps": SequenceFeature,
    "reach": SeriesFeature,
}


def targets_of(features: Mapping[str, Feature]) -> dict[str, TargetFeature]:
    """Those of the features that can be targets, by name."""
    return {
        name: feature
        for name, feature in features.items()
        if isinstance(feature, TargetFeature) and feature.decoder
    }


def collated(
    feature: Feature, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Any feature's stored rows as a batch holds them."""
    return (
        feature.collate(stored, fitted, keys)
        if isinstance(feature, CollatedFeature)
        else stored
    )


def reach_of(feature: Feature, *, target: bool) -> tuple[int, int]:
    """The steps that any feature reads of a sample, as offsets `[start, stop)` from the anchor."""
    if isinstance(feature, SeriesFeature):
        return feature.reach(target=target)
    # A plain target is read at the anchor, a plain input one step before it.
    return (0, 1) if target else (-1, 0)


class Augmentation(Part):
    """A random change to a stored row that keeps its meaning; its chance is a function of the row's key alone
    (penstock.contracts.chance).

    Laws (penstock.testing.laws.augmentations): shape and dtype are kept; one key, one change, alone as in a
    batch; what came in is left as it was.
    """

    shelf: ClassVar[str] = "penstock.parts.augmentations"

    @abstractmethod
    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        """The changed values of one row, such as a picture `[H, W, C]`: a new array of the same shape and
        dtype.
        """

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The changed values of many rows `[n, …]`, each as `apply` changes it with its key (uint64 `[n]`).

        The default goes row by row; override it where the whole batch can be changed at once.
        """
        changed = np.empty_like(values)
        for i, key in enumerate(keys.tolist()):
            changed[i] = self.apply(values[i], key)
        return changed
