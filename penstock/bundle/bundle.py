"""Bundle: what is deployed.

A folder that holds all it takes to answer rows, and that proves itself when opened.

    bundle.json         what it is and how to read it: names, program, encoding, required columns, steps
    fitted.json         what the features learnt from the training split
    decision.json       what was decided after training, by target (thresholds)
    programs/main.onnx  the program; `weights.safetensors` the weights it was made from
    source/             code of the user's that it needs (rarely): opened only when trusted
    golden.arrow        rows with their answers, replayed at every opening
    recipe.yaml, card.md, manifest.json

Opening reads every byte and compares it with the manifest, refuses foreign code, and answers the golden rows:
a bundle that would answer otherwise than when it was packed does not open. What this file refuses to know:
torch, and how a bundle is made.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic_core import PydanticCustomError

from penstock.bundle.contract import RowContract
from penstock.bundle.hostile import check_facts, clearly
from penstock.bundle.own_code import bring
from penstock.bundle.predictor import Predictor
from penstock.bundle.steps import Steps
from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.learn import Runtime
from penstock.contracts.learnt import Learnt
from penstock.core.errors import BundleError, RecipeError, RequestError, StoreError
from penstock.core.jsons import parsed
from penstock.core.near import did_you_mean
from penstock.core.page import facts_page
from penstock.core.paths import reason as why_refused
from penstock.core.paths import shown
from penstock.core.store import Artefact, Store
from penstock.encode.encoding import Encoding
from penstock.formats.options import Reading
from penstock.formats.table import read_sound
from penstock.recipe.bundled import check_bundle
from penstock.recipe.read import read_recipe
from penstock.recipe.schema import Recipe, Resources, load_recipe
from penstock.recipe.stores import as_store

FORMAT = 1
GOLDEN_TOLERANCE = 1e-5


class Bundle:
    """A verified bundle. Made by `Bundle.open` (or `penstock.bundle.pack.pack`).

    Example:
        >>> bundle = Bundle.open("bundle-0123456789abcdef", store="./store")   # doctest: +SKIP
        >>> bundle.predict([{"age": 39, "education": "Bachelors"}])             # doctest: +SKIP
        [{'income': '<=50K', 'income_probabilities': {'<=50K': 0.93, '>50K': 0.07}}]
    """

    def __init__(self, artefact: Artefact, *, trust: bool) -> None:
        self.path = artefact.path
        self.manifest = artefact.manifest
        self.trusted = trust
        self._facts: dict[str, Any] = self._json("bundle.json")
        # Judged before the id and the facts: a later format may lay either out
        # otherwise.
        form = self._facts.get("format", 0)
        if isinstance(form, int) and form > FORMAT:
            raise BundleError(
                f"{self.path} is a bundle of format {str(self._facts['format'])[:40]}; this Penstock reads"
                f" formats up to {FORMAT}. Upgrade Penstock."
            )
        try:
            # The id is computed again from the content, so an edited bundle does not
            # pass under the old one.
            self.id = check_bundle(artefact)
        except StoreError as error:
            raise BundleError(f"this bundle cannot be opened: {error.message}") from None
        check_facts(self._facts, str(self.path / "bundle.json"))
        self.decision: dict[str, dict[str, Any]] = self._json("decision.json")
        with self._sound():
            schema = _schema(self._facts["schema"])
        self.columns: dict[str, pa.DataType] = {
            field.name: field.type for field in schema
        }
        """The raw columns that a request must have, with the Arrow types they had in training."""
        with self._sound(), self._code():
            self.encoding = Encoding.load(
                {**self._facts["encoding"], "fitted": self._json("fitted.json")}
            )
            self.steps = Steps.load(self._facts["steps"])
            self._runtime = Runtime.load(self._facts["runtime"])
            rules = self._facts.get("contract")
            self.contract = None if rules is None else RowContract.load(rules)
            """The rules that rows must keep; None of a bundle that carries none."""
        with self._sound():  # what is read of its recipe only later is judged now
            _ = self.resources
            known = {each.alias or name for name, each in Reading.model_fields.items()}
            words = {w: v for w, v in self.learnt.reading.items() if w in known}
            Reading.model_validate({**words, "format": "auto"})
        # Asked before any program is opened: the first call into foreign code would be
        # too late.
        if self._runtime.foreign and not trust:
            raise BundleError(
                f"{self.reference} runs its own code"
                f" ({', '.join(self._facts['source'].values())}), so it is opened only if you"
                " trust where it came from. Open it with trust=True, or --trust."
            )
        self._predictors: dict[tuple[int, str], Predictor] = {}

    @classmethod
    def open(
        cls,
        reference: str | Path,
        *,
        store: Store | str | Path | None = None,
        trust: bool = False,
        replay: bool = True,
    ) -> Bundle:
        """Open a bundle, verified byte by byte, its golden rows replayed.

        Args:
            reference: a bundle's folder, `bundle-<16 hex>`, or the beginning of an id that only one bundle
                has.
            store: where references are looked up.
            trust: run code that came with the bundle; otherwise a bundle with any is refused.
            replay: answer the golden rows and compare; only who does not ask it for answers may leave this
                out.

        Raises:
            BundleError: there is no such bundle, or it was changed, is of a newer format, holds untrusted
                code, or answers otherwise than when it was packed.
            MissingPackage: its runtime is not installed.
        """
        # Every byte is verified before anything of the bundle is read.
        bundle = cls(_artefact(reference, store), trust=trust)
        if replay:
            with bundle._sound():
                # Opened outside of `replay`, so that a runtime that is not installed is
                # told even without golden rows.
                bundle.predictor()
                bundle.replay()
        return bundle

    def __repr__(self) -> str:
        return f"Bundle({self.reference!r}, name={self.name!r})"

    def _repr_html_(self) -> str:
        facts = {"name": self.name, "run": self.run, "dataset": self.dataset}
        return facts_page(self.reference, {**facts, "folder": self.path})

    # -- what it says of itself ------------------------------------------------------------------------------

    @property
    def reference(self) -> str:
        """How commands and stores name it: `bundle-<id>`."""
        return f"bundle-{self.id}"

    @property
    def name(self) -> str:
        """The name of the recipe that it was packed by."""
        return str(self._facts["name"])

    @property
    def run(self) -> str:
        """The run it came from."""
        return str(self._facts["run"])

    @property
    def dataset(self) -> str:
        """The dataset version its run learnt from, `name@id`."""
        return str(self._facts["dataset"])

    @property
    def learnt(self) -> Learnt:
        """How the training data was read; later data is read in the same way.

        Of a bundle of an older Penstock, the types of the columns that requests must have are known, and the
        recipe's words.
        """
        facts = self._facts.get("learnt") or {}
        schema = (
            _schema(facts["schema"])
            if "schema" in facts
            else pa.schema(list(self.columns.items()))
        )
        source = read_recipe(self._member("recipe.yaml")).get("source")
        features = {**self.encoding.inputs, **self.encoding.targets}
        commas = frozenset(
            column
            for name, feature in features.items()
            if feature.has_comma()
            for column in feature.columns(name)
        )
        reading = _reading(source) if isinstance(source, Mapping) else {}
        return Learnt(schema, reading, commas)

    @property
    def source_type(self) -> str:
        """The type of the recipe's source: `files`, or `folder` where each file is a row."""
        source = read_recipe(self._member("recipe.yaml")).get("source")
        kind = source.get("type", "files") if isinstance(source, Mapping) else "files"
        return str(kind)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row, as the recipe says them."""
        names = read_recipe(self._member("recipe.yaml")).get("key") or ()
        return (names,) if isinstance(names, str) else tuple(map(str, names))

    @property
    def distance(self) -> float | None:
        """The usual distance of two steps of a series in the training data
        (microseconds, where steps have times); None where it is not known.
        """
        distance = (self._facts.get("learnt") or {}).get("distance")
        return None if distance is None else float(distance)

    @property
    def keep(self) -> tuple[str, ...]:
        """Columns that are carried along into predictions, where the rows have them."""
        return tuple(self._facts["keep"])

    @property
    def serve_options(self) -> dict[str, Any]:
        """The recipe's `serve` section."""
        return dict(self._facts["serve"])

    @property
    def resources(self) -> Resources:
        """The recipe's `resources` section, which needs no trust."""
        return Resources.model_validate(
            read_recipe(self._member("recipe.yaml")).get("resources") or {}
        )

    @property
    def card(self) -> str:
        """The model card, as Markdown."""
        return self._member("card.md").read_text("utf-8")

    def facts(self) -> dict[str, Any]:
        """Return a summary of the bundle as plain data, for people and tools."""
        facts = self._facts
        return {
            "name": self.name,
            "run": self.run,
            "dataset": self.dataset,
            "created": self.manifest.get("created"),
            "runtime": self._runtime.type,
            "columns": facts["columns"],
            "targets": {
                name: feature.type for name, feature in self.encoding.targets.items()
            },
            "keep": list(self.keep),
            "decision": self.decision,
            "measured": facts["measured"],
            "validation": facts["validation"],
            "penstock": facts["penstock"],
        }

    def recipe(self, trust: bool | None = None) -> Recipe:
        """Load the recipe that the bundle was packed by.

        Args:
            trust: import the parts that did not come with Penstock; what the bundle was opened with unless
                given.

        Raises:
            RecipeError: it names foreign parts and is not trusted.
        """
        # A bundle opened with trust may still have its recipe read without, and the
        # other way round.
        allowed = self.trusted if trust is None else trust
        # Trusted code lies beside the user, as for `predict`: a bundle brings what answering needs, but
        # neither metrics nor readers.
        base = Path.cwd() if allowed else None
        with nullcontext() if allowed else no_foreign_code():
            return load_recipe(self._member("recipe.yaml"), base=base, name=self.name)

    # -- answering -------------------------------------------------------------------------------------------

    def predictor(self, *, threads: int = 1, expect: str | None = None) -> Predictor:
        """Return the predictor of this bundle, opened once for each number of threads.

        Args:
            threads: how many threads one call of the program may use. One is best for requests; for large
                batches two are faster where the model is wide.
            expect: what becomes of a row that breaks a rule of the contract, `refuse` or `ignore`; what the
                recipe's `serve` section says unless given.
        """
        policy = expect or str(self._facts["serve"].get("expect", "refuse"))
        if (threads, policy) not in self._predictors:
            program = self._facts["programs"]["main"]
            # Refused here by name if the manifest does not list them.
            for name in (
                program["file"],
                *([program["weights"]] if "weights" in program else []),
            ):
                self._member(name)
            with nullcontext() if self.trusted else no_foreign_code():
                opened = self._runtime.open(self.path, program, threads=threads)
            self._predictors[threads, policy] = Predictor(
                encoding=self.encoding,
                program=opened,
                outputs={
                    # A length that varies counts 0 here: only the answers to no rows
                    # have this shape.
                    entry["name"]: (entry["dtype"], tuple(n or 0 for n in entry["shape"]))
                    for entry in program["outputs"]
                },
                decision=self.decision,
                columns=self.columns,
                keep=self.keep,
                steps=self.steps,
                learnt=self.learnt,
                sparse=bool((self._facts.get("learnt") or {}).get("sparse")),
                contract=None if policy == "ignore" else self.contract,
            )
        return self._predictors[threads, policy]

    def predict(self, rows: Any, *, keep: Sequence[str] | None = None) -> Any:
        """Answer rows: the kept columns, then `<target>`, `<target>_probabilities` and the like; the same
        kind comes out.

        Args:
            rows: a pandas or Polars frame, an Arrow table or record batch, a dict of lists, or a list of
                records, with the columns in `columns`; others are ignored. Or one record: a dict, a row of a
                pandas frame (a Series, a named tuple). A column `a.b` may be the field `b` of an object `a`.
            keep: columns to carry along beside the bundle's own `keep`.

        Raises:
            RequestError: a column is absent, or a row has a value that cannot be taken: each with row, field
                and reason.
        """
        return self.predictor().predict(rows, keep)

    def golden(self) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """The golden rows, and the program's answers `{"<target>.<answer>": [n, …]}` when it was packed.

        Raises:
            BundleError: they cannot be read.
        """
        try:
            return self._golden(read_sound(self._member("golden.arrow")))
        # What damaged Arrow data raises depends on where it is damaged.
        except (
            pa.ArrowException,
            OSError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
        ) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BundleError(
                f"{self.reference}: its golden rows cannot be read, golden.arrow is damaged ({reason}). Fetch"
                " or pack the bundle again."
            ) from None

    def _golden(self, table: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        # A table without rows has no chunk to take the struct from.
        rows = (
            pa.Table.from_batches(
                [pa.RecordBatch.from_struct_array(table["row"].chunk(0))]
            )
            if table.num_rows
            else pa.table({n: pa.nulls(0, t) for n, t in self.columns.items()})
        )
        answers = {}
        for entry in self._facts["programs"]["main"]["outputs"]:
            column = (
                table["answer"].combine_chunks().field(entry["name"])
                if table.num_rows
                else pa.array([], pa.float64())
            )
            flat = (
                column.flatten().to_numpy(zero_copy_only=False)
                if pa.types.is_list(column.type)
                else column.to_numpy(zero_copy_only=False)
            )
            answers[entry["name"]] = flat.reshape(
                table.num_rows,
                *(
                    # Among answers of one call a varying length is one size, so it
                    # follows from the number of values.
                    (-1 if n is None and table.num_rows else n or 0)
                    for n in entry["shape"]
                ),
            )
        return rows, answers

    def replay(self) -> float:
        """Answer the golden rows; returns the largest difference from the answers when it was packed.

        Raises:
            BundleError: it is more than 1e-5 (as a share of 1, or of the answer's own size if that is more).
        """
        rows, expected = self.golden()
        if not rows.num_rows:
            return 0.0
        try:
            # Stored raw, so that the serving steps are proven with the rest; without private values.
            answers = self.predictor().answers(rows, rows=self.steps.golden_rows)
        except RequestError as error:
            raise BundleError(
                f"{self.reference} refuses its own golden rows, although it answered them"
                f" when it was packed: {error.message}"
            ) from None
        worst = 0.0
        for name, answer in expected.items():
            apart = np.abs(answers[name].astype(np.float64) - answer) / np.maximum(
                1.0, np.abs(answer)
            )
            # NaN compares false with every tolerance; infinity does not.
            apart = np.where(np.isnan(apart), np.inf, apart)
            worst = max(worst, float(apart.max(initial=0.0)))
            if worst > GOLDEN_TOLERANCE:
                row = int(np.argmax(apart.reshape(len(apart), -1).max(axis=1)))
                raise BundleError(
                    f"{self.reference} answers its golden row {row} differently than when it was"
                    f" packed: {name} is {np.ravel(answers[name][row])[:5].tolist()}, it was"
                    f" {np.ravel(answer[row])[:5].tolist()} (difference {worst:.1e}, allowed"
                    f" {GOLDEN_TOLERANCE:g}). This machine's runtime or Penstock's encoding"
                    " computes differently; pack the run again here, or serve it where it was"
                    " packed."
                )
        return worst

    # -- files -----------------------------------------------------------------------------------------------

    def _member(self, name: str) -> Path:
        """Return the path of a file that the manifest lists, and so was verified."""
        if not isinstance(name, str) or name not in self.manifest["files"]:
            raise BundleError(
                f"{self.path} has no {shown(name)} in its manifest: it is incomplete, or not"
                " a bundle."
            )
        return self.path / name

    def _json(self, name: str) -> dict[str, Any]:
        try:
            document = parsed(self._member(name).read_text("utf-8"))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise BundleError(f"{self.path / name} is not a JSON object.")
        return document

    @contextmanager
    def _code(self) -> Iterator[None]:
        """Context in which parts are loaded; the bundle's own code only if it is
        trusted.
        """
        try:
            if self.trusted:
                for module, file in self._facts["source"].items():
                    bring(module, self._member(file))
                yield
            else:
                with no_foreign_code():
                    yield
        except (RecipeError, PydanticCustomError) as error:
            raise BundleError(
                f"{self.reference} cannot be opened: {_reason(error)}. If you trust where it came from, open"
                " it with trust=True, or --trust."
                if not self.trusted
                else f"{self.reference} cannot be opened: {_reason(error)}."
            ) from None

    def _sound(self) -> AbstractContextManager[None]:
        """Context in which the bundle's files are read; anything that pack does not
        write becomes a BundleError.

        An error of code of its own, if that is trusted, stays what it is, with its traceback.
        """
        return clearly(str(self.path), own=self.path if self.trusted else None)


def _schema(encoded: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))


def _reading(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of a recipe's source that say how its files are read, without
    their paths; where each split has words, those of the training split.
    """
    train = source.get("train")
    words = {**source, **(train if isinstance(train, Mapping) else {})}
    places = (
        "type",
        "path",
        "train",
        "validation",
        "test",
        "load",
        "columns",
        "on_bad_row",
    )
    return {str(word): value for word, value in words.items() if word not in places}


def _reason(error: RecipeError | PydanticCustomError) -> str:
    text = (
        error.message
        if isinstance(error, RecipeError)
        else str((error.context or {}).get("text", error))
    )
    return text.rstrip(".")


def _artefact(reference: str | Path, store: Store | str | Path | None) -> Artefact:
    text = str(reference)
    folder = Path(os.path.expanduser(text))
    try:
        # A slash or a folder with a manifest means a path; everything else is a reference, whatever else
        # the working folder has of that name.
        is_artefact = os.path.isdir(folder) and (
            store is None or os.path.isfile(folder / "manifest.json")
        )
        if isinstance(reference, Path) or is_artefact or "/" in text:
            if not os.path.isdir(folder):
                raise BundleError(f"there is no folder {shown(str(folder))}.")
            artefact = Artefact.open(folder, verify=True)
        else:
            artefact = _from_store(text, store)
    except StoreError as error:
        raise BundleError(f"this bundle cannot be opened: {error.message}") from None
    if artefact.manifest.get("type") != "bundle":
        raise BundleError(
            f"{artefact.path} is a {artefact.manifest.get('type', 'thing')} of Penstock, not a bundle."
        )
    return artefact


def _from_store(text: str, store: Store | str | Path | None) -> Artefact:
    if store is None:
        raise BundleError(
            f"there is no folder {text!r} here; to look it up as a reference, say in which store (store=, or"
            " --store)."
        )
    opened = as_store(store)
    known = [
        name.split("/")[1]
        for name in opened.names("bundles")
        # A store may list names that could not be a path of it.
        if why_refused(name) is None
    ]
    wanted = text.removeprefix("bundle-").lower()
    # Text that is no hexadecimal cannot begin an id.
    near = (
        [name for name in known if wanted and name.startswith(wanted)]
        if re.fullmatch(r"[0-9a-f]{1,16}", wanted)
        else []
    )
    if len(near) == 1:
        return opened.open(f"bundles/{near[0]}", verify=True)
    references = [f"bundle-{name}" for name in known]
    listed = (
        f"It has {', '.join(references[:10])}{' …' if len(references) > 10 else ''}."
        if references
        else "It has no bundles."
    )
    if near:
        raise BundleError(
            f"{text!r} is the beginning of {len(near)} bundles in the store {opened.url}:"
            f" {', '.join(f'bundle-{n}' for n in near[:10])}. Give more of it."
        )
    raise BundleError(
        f"there is no bundle {text!r} in the store {opened.url}.{did_you_mean(text, references)} {listed}"
    )


def encode_schema(columns: Mapping[str, pa.DataType]) -> str:
    """Encode names and Arrow types as text (base64 of Arrow's own form), without loss."""
    return base64.b64encode(
        pa.schema(list(columns.items())).serialize().to_pybytes()
    ).decode()
