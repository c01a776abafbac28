"""The words of a recipe.

One record a section; parts (source, features, encoders, …) keep their options in their own files. Every
default here has its reason beside it. What is not built is not a word: an unknown section is refused, never
ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from penstock.contracts.data import Cleaner, Engine, Source
from penstock.contracts.features import Feature, SeriesFeature, targets_of
from penstock.contracts.foreign import foreign_code_allowed, look_beside, modules_beside
from penstock.contracts.learn import Launcher, Tracker
from penstock.contracts.metric import Metric
from penstock.contracts.part import Strict, flatten, mistakes, part
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import Problem, RecipeError
from penstock.core.identity import fingerprint
from penstock.core.near import Hints, listed
from penstock.core.redact import learn, redacted_urls
from penstock.recipe.bounded import refuse_unbounded
from penstock.recipe.evaluate import Evaluate as Evaluate
from penstock.recipe.evaluate import split_watched
from penstock.recipe.expect import Expect as Expect
from penstock.recipe.expect import ExpectTable as ExpectTable
from penstock.recipe.given import remember_given
from penstock.recipe.governance import Governance as Governance
from penstock.recipe.identifiers import Names as Names
from penstock.recipe.identifiers import shelf_name
from penstock.recipe.leaks import leaks, step_leaks
from penstock.recipe.model import Model as Model
from penstock.recipe.model import OwnModel as OwnModel
from penstock.recipe.model import which_model
from penstock.recipe.of_dataset import PREPARING, with_dataset
from penstock.recipe.parallel import Parallel
from penstock.recipe.privacy import private_problems
from penstock.recipe.read import include, override, read_recipe
from penstock.recipe.resources import LEAST_MEMORY as LEAST_MEMORY
from penstock.recipe.resources import Resources as Resources
from penstock.recipe.rows import ROW_ORDER as ROW_ORDER
from penstock.recipe.rows import Join as Join
from penstock.recipe.rows import Samples as Samples
from penstock.recipe.rows import Split as Split
from penstock.recipe.secret import with_secrets
from penstock.recipe.serve import Serve as Serve
from penstock.recipe.sources import with_frames_as_files, with_whole_sources
from penstock.recipe.train import CheckpointPolicy as CheckpointPolicy
from penstock.recipe.train import EarlyStop as EarlyStop
from penstock.recipe.train import Train as Train
from penstock.recipe.weighing import weighing_problems, weighs

_OF_DATA = ("join", "where", "sample", "key", "derive", "expect", "clean", "split")
LATER_SECTIONS = ("expect_table", "repairs", "private", "governance", "cluster_by")
"""Sections that came later; a recipe without them keeps the ids that it gave."""
_NOTHING = Governance().to_dict()


class Recipe(Strict):
    """All that is declared. Only `source` or `dataset` is required; to train, `inputs` and `targets` too."""

    name: Annotated[str, AfterValidator(shelf_name)] = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$"
    )
    """Names the datasets; the recipe file's name unless given.

    At most 100 of the characters A–Z a–z 0–9 . _ -, the first no dot.
    """
    seed: int = 0
    """The one seed: split, sample, initialisation, shuffling and chance in training are derived from it by
    name.
    """
    source: Source
    """Where rows come from."""
    dataset: str | None = None
    """A version, NAME@ID or NAME@TAG, or a subset of one, NAME@ID?where=…, to learn from in place of
    `source`: its rows are prepared already, and are copied nowhere.
    """
    join: list[Join] = []
    """Other sources whose columns are brought to each row, in order."""
    where: str | None = None
    """A SQL condition on the source's columns (joined ones included); the other rows are counted as
    filtered.
    """
    sample: int | None = Field(None, ge=1)
    """Keep so many rows, chosen by the hash of their ids; the others are counted as filtered."""
    key: Names = ()
    """Columns that name a row; its id is then their hash instead of its place."""
    derive: dict[str, str] = {}
    """New columns as SQL expressions."""
    engine: Engine = Field(part("embedded"), validate_default=True)
    """The engine that prepares the data. Results are the same with either."""
    expect: dict[str, Expect] = {}
    """The data contract, by column."""
    expect_table: ExpectTable | None = None
    """The data contract of the table: how many rows there are, and rules on several columns."""
    repairs: Source | None = None
    """Mended rows of the quarantine, as `penstock quarantine show -o FILE` exports them: each takes the place
    of the row that its `quarantine_file` and `quarantine_line` name.
    """
    clean: list[Cleaner] = []
    """Steps that mend or drop rows, in order; those that learn from the training split come after the
    split.
    """
    private: dict[str, Anonymiser] = {}
    """Columns that tell of persons, and how each is hidden: after `expect` and the cleaners that learn
    nothing, before the split.
    """
    governance: Governance = Governance()
    """Consent, retention, and how many people a row must be alike."""
    split: Split = Split()
    cluster_by: str | None = None
    """A column that the rows of each split are sorted by, so that a subset by it reads few of them; without
    it they are in the order of their row ids.
    """
    parent: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]+@[0-9a-f]{16}$")
    """A version, NAME@ID, made of some of the source's files by the same words: its rows are shared, and only
    the other files are read. Without it the store is searched for such a version.
    """
    fit: Literal["again", "parent"] = "again"
    """`parent`: fitted cleaners take over what those of `parent` learnt. `again`: they learn from all rows,
    and where there are such cleaners all files are prepared anew.
    """
    samples: Samples | None = None
    """For series: how rows make samples. Without it a row is a sample, and a series is a column of lists."""
    inputs: dict[str, Feature] = {}
    """What the model sees: name → feature. The name is the column unless the feature says `column`."""
    targets: dict[str, Feature] = {}
    """What it answers; several are learnt together."""
    weight: str | None = None
    """A column of non-negative numbers: how much each row counts, in training and in metrics."""
    keep: Names = ()
    """Columns carried along into predictions."""
    model: Annotated[Model | OwnModel, BeforeValidator(which_model)] = Field(
        default_factory=lambda: Model()
    )
    train: Train = Field(default_factory=lambda: Train())
    parallel: Parallel = Parallel()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    launcher: Launcher = Field(part("local"), validate_default=True)
    """Where training runs, on how many processes and threads; it changes no answer beyond rounding."""
    trackers: list[Tracker] = Field([part("tensorboard")], validate_default=True)
    """Where a run's measurements are shown beside its own diary."""
    resources: Resources = Resources()
    store: str = "./store"
    """A folder, or a bucket such as s3://team/penstock."""

    _base: Path = PrivateAttr(default_factory=Path.cwd)

    _is_given: bool = PrivateAttr(default=True)

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._base

    @property
    def is_given(self) -> bool:
        """Whether the user gave it to this process, or trusts where it came from: only then is a model of its
        own imported.
        """
        return self._is_given

    def take_as_given(self) -> None:
        """Let it build a model of its own: this process was given the same code by its user."""
        self._is_given = True

    @model_validator(mode="after")
    def _hold_together(self) -> Recipe:
        """Check the sections against one another; every problem at once, in the order
        of a recipe's sections.
        """
        # Hints are bounded for an error as a whole, so the parts share them.
        of_input, of_target = Hints(self.inputs), Hints(self.targets)
        problems = self._feature_problems(of_input)
        problems += (
            self._sample_problems(self.samples)
            if self.samples
            else leaks(self.inputs, self.targets)
        )
        problems += self._model_problems(of_target)
        problems += self._train_problems(of_input, of_target)
        problems += self.train.order.problems(
            {**self.inputs, **self.targets}, self.weight, sampled=self.samples is not None
        )
        problems += private_problems(self)
        if self.fit == "parent" and self.parent is None:
            text = "is `parent`, and no version is named: give `parent: NAME@ID`"
            problems.append(Problem(("fit",), text))
        problems += weighing_problems(self.clean, self.weight)
        if problems:
            raise mistakes(*problems)
        return self

    def _feature_problems(self, of_input: Hints) -> list[Problem]:
        # Features that can answer; the others are problems below.
        answerable = targets_of(self.targets)
        problems = [
            Problem(
                ("targets", name),
                "is also an input. A target that is an input needs no learning",
            )
            for name in self.inputs.keys() & self.targets.keys()
        ]
        for side, features in (("inputs", self.inputs), ("targets", self.targets)):
            for name, feature in features.items():
                if not re.fullmatch(r"[^/<>]+", name):
                    problems.append(
                        Problem(
                            (side, name),
                            "a feature's name must not be empty or have / < > in it",
                        )
                    )
                if side == "inputs" and not feature.encoder:
                    problems.append(
                        Problem(
                            (side, name),
                            f"the feature {feature.type!r} cannot be an input",
                        )
                    )
                if side == "targets" and name not in answerable:
                    problems.append(
                        Problem(
                            (side, name),
                            f"the feature {feature.type!r} cannot be a target",
                        )
                    )
                if why := feature.unfit(
                    target=side == "targets", sampled=self.samples is not None
                ):
                    problems.append(Problem((side, name), why))
        problems += [
            Problem(
                ("targets", name, "over"), f"{over!r} is not an input.{of_input(over)}"
            )
            for name, feature in answerable.items()
            if (over := feature.labels_steps_of()) is not None
            and self.inputs
            and over not in self.inputs
        ]
        return problems

    def _model_problems(self, of_target: Hints) -> list[Problem]:
        """Return problems of encoders and decoders that name no feature."""
        if not isinstance(self.model, Model):
            return []
        # An encoder is named for one input, or for all inputs of a type.
        inputs = dict.fromkeys(
            [*self.inputs, *(f"<{f.type}>" for f in self.inputs.values())]
        )
        of_encoded = Hints(inputs)
        problems = [
            Problem(("model", "encoders", n), f"is not an input.{of_encoded(n)}")
            for n in self.model.encoders
            if n not in inputs
        ]
        problems += [
            Problem(("model", "decoders", n), f"is not a target.{of_target(n)}")
            for n in self.model.decoders
            if n not in self.targets
        ]
        return problems

    def _train_problems(self, of_input: Hints, of_target: Hints) -> list[Problem]:
        """Return problems of `train`: names that are not there, and words that the
        strategy cannot keep.
        """
        problems: list[Problem] = []
        on_nan = self.train.on_nan
        if on_nan != "stop" and (why := self.parallel.strategy.refuses("on_nan", on_nan)):
            problems.append(Problem(("train", "on_nan"), why))
        problems += [
            Problem(("train", "class_weights", n), f"is not a target.{of_target(n)}")
            for n in self.train.class_weights
            if n not in self.targets
        ]
        problems += [
            Problem(
                ("train", "freeze"),
                f"{n!r} is not an input.{of_input(n)} Known: {listed(self.inputs)}.",
            )
            for n in self.train.freeze
            if self.inputs and n not in self.inputs
        ]
        watched = self.train.early_stop.metric if self.train.early_stop else "loss"
        problems += self.evaluate.watched_problems(watched, self.targets)
        # A user's own module has no decoders of Penstock's to name.
        decoders = self.model.decoders if isinstance(self.model, Model) else {}
        features = targets_of(self.targets)
        kinds = {
            n: decoders[n].type if n in decoders else f.decoder
            for n, f in features.items()
        }
        return problems + self.evaluate.problems(kinds)

    def _sample_problems(self, samples: Samples) -> list[Problem]:
        """Return problems of a recipe whose rows are steps."""
        problems: list[Problem] = []
        features = {**self.inputs, **self.targets}
        if features and not any(
            isinstance(feature, SeriesFeature) for feature in features.values()
        ):
            problems.append(
                Problem(("samples",), "is for features of type series, and there is none")
            )
        if self.split.by == "hash" and (
            not self.split.on or not set(self.split.on) <= set(samples.entity)
        ):
            problems.append(
                Problem(
                    ("split",),
                    "by hash would split the steps of a series over several splits. Use `by: "
                    + (
                        "order"
                        if samples.time is None
                        else f"time` with `on: {samples.time}"
                    )
                    + "`, or `by: hash` with `on:` columns of `samples.entity`",
                )
            )
        raw = {
            column: name
            for name, feature in features.items()
            if not isinstance(feature, SeriesFeature)
            for column in feature.columns(name)
        }
        for name, feature in features.items():
            side = "inputs" if name in self.inputs else "targets"
            if isinstance(feature, SeriesFeature) and (
                name in raw or name in (samples.order, *samples.entity)
            ):
                problems.append(
                    Problem(
                        (side, name),
                        "has the name of a column that is also read by itself, so requests could not"
                        " distinguish them. Rename the series",
                    )
                )
        # Columns whose steps a series reads; a request brings them as whole windows.
        spanned = {
            column
            for name, feature in features.items()
            if isinstance(feature, SeriesFeature)
            for column in feature.columns(name)
        }
        for i, cleaner in enumerate(self.clean):
            mended = sorted(spanned & set(cleaner.needs()))
            if cleaner.at_serving == "apply" and mended:
                problems.append(
                    Problem(
                        ("clean", i),
                        f"changes {mended[0]!r}, the steps of a series, which it could not do in a"
                        " request with whole windows. Use `missing` of the series, or `derive` a"
                        " column",
                    )
                )
        return problems + step_leaks(self.inputs, self.targets)

    @model_serializer(mode="wrap")
    def _later_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        words: dict[str, Any] = handler(self)
        empty: tuple[Any, ...] = (None, {}, _NOTHING)
        absent = {
            word
            for word in (*LATER_SECTIONS, "dataset", "parent")
            if words.get(word) in empty
        }
        if self.fit == "again":
            absent.add("fit")
        if self.dataset is not None:
            absent |= set(PREPARING)
        return {word: value for word, value in words.items() if word not in absent}

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any], *overrides: str) -> Recipe:
        """Load a recipe from a file or a mapping, with overrides such as
        `"train.lr=3e-4"` (see `load_recipe`).

        Raises:
            RecipeError: every mistake at once, each with its path.
        """
        return load_recipe(source, overrides)

    def watched_metric(self) -> Metric | None:
        """Return the metric of `evaluate.metrics` that decides which epoch is best, if
        one of them does.
        """
        # Without early stopping the loss decides.
        if self.train.early_stop is None:
            return None
        return self.evaluate.metric(
            split_watched(self.train.early_stop.metric, self.targets)[1]
        )

    def data_identity(self) -> dict[str, Any]:
        """Return what of the recipe enters a dataset's id, beside the source's snapshot."""
        whole = self.to_dict()
        chosen = {word: whole[word] for word in _OF_DATA}
        # Only where it is asked for, so that other datasets keep their ids.
        chosen |= {word: whole[word] for word in LATER_SECTIONS if word in whole}
        # Its values are changed, so which column it is decides what is written.
        if weighs(self.clean):
            chosen["weight"] = self.weight
        if self.samples is not None and self.samples.time is None:
            chosen["row_order"] = True
        # Other pseudonyms are other rows; the check tells that a key changed, and not the key.
        keys = {name: how.key_check() for name, how in self.private.items()}
        if any(keys.values()):
            chosen["private_keys"] = keys
        # Else the rows are those of preparing all files, whatever version they are shared with.
        if self.fit == "parent":
            chosen |= {"parent": self.parent, "fit": self.fit}
        # A sample is drawn by the recipe's own seed, which is not that of the split here.
        if self.sample is not None and self.split.seed not in (None, self.seed):
            chosen["sample_seed"] = self.seed
        return {
            **chosen,
            # The seed of the split alone, so that another training seed keeps the
            # dataset.
            "split_seed": self.seed if self.split.seed is None else self.split.seed,
        }

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}, inputs={list(self.inputs)}, targets={list(self.targets)})"

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of everything declared."""
        return fingerprint(redacted_urls(self.to_dict()))


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    base: Path | None = None,
    name: str | None = None,
) -> Recipe:
    """Load a recipe from a file (`.yaml`, `.yml`, `.toml`, `.json`) or a mapping.

    Args:
        source: the file, or plain data.
        overrides: `a.b=YAML` each, applied in order; a step that is a number indexes a list.
        base: the folder that relative paths start from; the file's own, or the working folder.
        name: a name where the recipe has none; the file's unless given.

    Raises:
        RecipeError: every mistake at once, each with its path.
        UserError: an option that is a secret was blanked, and the environment does not have it.
    """
    try:
        return _load_recipe(source, overrides, base, name)
    except (
        RecursionError
    ):  # aliases of aliases: few values, and deeper than may be walked
        where = str(source) if isinstance(source, (str, Path)) else "the recipe"
        raise RecipeError(f"{where}: it is nested too deeply to be read") from None


def _load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    base: Path | None,
    name: str | None,
) -> Recipe:
    # `beside` lets `type: acme.tcn` find a module in the recipe's folder.
    where, beside = "the recipe", None if base is None else str(base)
    if isinstance(source, (str, Path)):
        path = Path(source)
        where = str(path)
        data = read_recipe(path)
        base = base or path.resolve().parent
        name = name or path.name.split(".")[0]
        beside = str(base)
    else:
        # Frames first: nothing may walk, copy or print them.
        if isinstance(source, Mapping):
            source = with_frames_as_files(source)
        # Bounded before anything walks it.
        refuse_unbounded(source, where=where)
        # Through JSON: plain types only, and nothing shared with the caller.
        data = json.loads(json.dumps(source, default=str))
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{where} must be a mapping with at least `source`; found {type(data).__name__}. See `penstock"
            " init` for a start."
        )
    data = dict(data)
    for text in overrides:
        override(data, text)
    # After the overrides, which may have made it larger; of TOML and JSON this is the
    # first look.
    refuse_unbounded(data, where=where)
    data = with_dataset(data, where)
    data = with_whole_sources(data, (base or Path.cwd()).resolve())
    # A bundle's recipe is read without its secrets: it opens where nobody has them.
    data = with_secrets(data, strict=foreign_code_allowed())
    # Registered before validation, whose messages may repeat values.
    learn(data)  # whatever goes wrong from here on, no error tells a password
    if not data.get("name"):
        data["name"] = name or "unnamed"
    # A recipe that came with an artefact holds its files' contents, and reads none.
    if foreign_code_allowed():
        data |= {
            side: include(data[side], (base or Path.cwd()).resolve())
            for side in ("inputs", "targets")
            if side in data
        }
    try:
        with modules_beside(beside):
            recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError.of(flatten(error, data), where=where) from None
    # Set after validation: they are no words of a recipe.
    recipe._base = (base or Path.cwd()).resolve()
    recipe._is_given = foreign_code_allowed()
    # What came with an artefact, or from another process, was not given by the user.
    if recipe.is_given:
        remember_given(recipe.to_dict())
    if recipe.is_given and isinstance(recipe.model, OwnModel):
        look_beside(beside)
    return recipe
