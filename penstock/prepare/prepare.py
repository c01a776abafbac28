"""Preparing, told top to bottom: from declared sources to an immutable dataset version.

    snapshot → id → (there already? then that) → extract → row ids → joins → where → sample → derive → expect
             → clean → split → clean with what the training split taught → write → profile

Each step is an Ibis expression on the recipe's engine; nothing runs before it must. The rows are computed
once, on disk (`keep`), when their split is known; what stands before is scanned a second time only where a
count is owed (`where`, `expect`, a row to quarantine).

Identity. The id is the fingerprint of the snapshots (names and content, no places or times), of what the
recipe says of data, of how sources are read (without their paths), and of the format. Where rows lie, engine,
threads and memory do not enter: they change no row.

Order. Rows are written in the order of their row id, so that positions in a feed mean the same rows
everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock._version import __version__
from penstock.contracts.data import (
    PLACE,
    ROW_FILE,
    ROW_ID,
    ROW_NUMBER,
    Cleaner,
    EngineSession,
    Extract,
    Snapshot,
    Source,
    is_wide,
)
from penstock.contracts.digest import md5, row_digests
from penstock.core.errors import ContractError, PenstockError, Problem, RecipeError, SourceError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.making import made_once
from penstock.core.redact import redacted_url
from penstock.core.store import Store, as_store_error
from penstock.prepare.blob_store import BlobStore, large_columns
from penstock.prepare.budget import threads_of
from penstock.prepare.clean import around_split, derive, moved
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.join import ToOne, other_types
from penstock.prepare.ledger import COLUMN, REASON, Ledger
from penstock.prepare.profile import profile
from penstock.prepare.row_ids import by_key, by_place, column_names, read_extract
from penstock.prepare.split import SPLIT, assign
from penstock.prepare.validate import column_problems, expect, learning_problems, typed_problems
from penstock.recipe.schema import Join, Recipe
from penstock.recipe.secret import without_secrets

if TYPE_CHECKING:
    import ibis.expr.types as ir

FORMAT = 1
"""Of what is written. It enters every dataset's id: raise it when the same recipe would give other rows."""
_MEMO = "index/hashes.json"
_OURS = PLACE
_OVERLAP_MEANS = "rows whose values all equal those of a training row"


# -- the whole -----------------------------------------------------------------------------------------------


def prepare(recipe: Recipe, store: Store, events: Events) -> Dataset:
    """Make the dataset version that `recipe` declares, or return it if it is there.

    Raises:
        RecipeError: the recipe names columns that are not there, or has expressions that do not hold; all of
            them at once.
        SourceError: data that cannot be found or read.
        ContractError: the data breaks a promise with `on_violation: fail`, a join is not to-one, or nothing
            is left to train on.
        StoreError: the disk is full, or the store may not be written.
    """
    survey = _survey(recipe, store)
    name = f"datasets/{recipe.name}/{survey.id}"
    return made_once(
        store,
        name,
        f"dataset {recipe.name}@{survey.id}",
        events,
        found=lambda: _checked(recipe, Dataset.at(store, name)) if store.has(name) else None,
        make=lambda: _made(recipe, store, events, survey, name),
    )


def _made(recipe: Recipe, store: Store, events: Events, survey: _Survey, name: str) -> Dataset:
    start = time.perf_counter()
    manifest: dict[str, Any] = {}
    with store.scratch("scratch-") as scratch, store.draft(name, manifest) as folder:
        work = _Work(recipe, events, folder, scratch, survey)
        with as_store_error(folder):
            work.extract()
            with recipe.engine.open(
                scratch / "engine", memory_bytes=recipe.resources.memory, threads=threads_of(recipe)
            ) as session:
                made = work.crunch(session)
        manifest |= {
            "type": "dataset",
            "name": recipe.name,
            "id": survey.id,
            **made,
            "lineage": _lineage(recipe, survey, work),
            "seconds": round(time.perf_counter() - start, 3),
        }
    events.say(f"{manifest['counts']['in']:,} rows in = {work.ledger.sentence()}", counts=manifest["counts"])
    return Dataset.at(store, name)


def find_dataset(recipe: Recipe, store: Store) -> Dataset | None:
    """The finished version that `recipe` declares over its sources as they are now, if there is one.

    Raises:
        RecipeError: it is there, and lacks columns that the recipe names.
    """
    name = f"datasets/{recipe.name}/{_survey(recipe, store).id}"
    return _checked(recipe, Dataset.at(store, name)) if store.has(name) or store.finish(name) else None


def _checked(recipe: Recipe, dataset: Dataset) -> Dataset:
    """A dataset that is there already, held against what the recipe names beyond the words that make its
    id.
    """
    if problems := learning_problems(recipe, [name for name in dataset.manifest["schema"] if name != ROW_ID]):
        raise RecipeError.of(problems, where=f"the recipe {recipe.name!r}")
    return dataset


def dataset_id(recipe: Recipe, snapshot: Snapshot, joined: list[Snapshot]) -> str:
    """16 hexadecimal digits: equal if and only if the same rows would come out."""
    identity = recipe.data_identity()
    identity["join"] = [{**join.to_dict(), "source": _reading(join.source)} for join in recipe.join]
    return fingerprint(
        "dataset",
        FORMAT,
        snapshot.to_dict(),
        [other.to_dict() for other in joined],
        _reading(recipe.source),
        identity,
    )


def _reading(source: Source) -> dict[str, Any]:
    """How a source is read: all it declares but the places, for which the snapshot stands with names and
    content.
    """

    def without_path(options: Mapping[str, Any]) -> dict[str, Any]:
        return {word: value for word, value in options.items() if word != "path"}

    def without_roots(loads: Mapping[str, Any]) -> dict[str, Any]:
        return {
            column: {word: value for word, value in how.items() if word != "root"}
            for column, how in loads.items()
        }

    declared = without_path(source.to_dict())
    if isinstance(declared.get("load"), Mapping):
        declared["load"] = without_roots(declared["load"])
    return {
        word: without_path(value) if word in SPLITS and isinstance(value, Mapping) else value
        for word, value in declared.items()
    }


@dataclass
class _Survey:
    """What would be read, and what it is called."""

    snapshot: Snapshot
    joined: list[Snapshot]
    id: str


def _survey(recipe: Recipe, store: Store) -> _Survey:
    memo = store.at(_MEMO)
    snapshot = recipe.source.snapshot(recipe.base, memo)
    joined = [join.source.snapshot(recipe.base, memo) for join in recipe.join]
    return _Survey(snapshot, joined, dataset_id(recipe, snapshot, joined))


# -- the steps -----------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """One preparation under way."""

    recipe: Recipe
    events: Events
    folder: Path
    scratch: Path
    survey: _Survey
    main: Extract = field(init=False)
    lookups: list[Extract] = field(init=False)
    aside: BlobStore = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self._steps = 0
        self.files = self.survey.snapshot.files
        self.paths = [file.path for file in self.files]
        self.ledger = Ledger(self.folder / "quarantine", self.paths)

    def extract(self) -> None:
        """Every source as plain Parquet; then all that is wrong with the recipe's columns, at once."""
        memory = self.recipe.resources.memory
        self._step("extract")
        self.main = self.recipe.source.extract(
            self.survey.snapshot, self.scratch / "source", memory_bytes=memory, events=self.events
        )
        self.lookups = [
            join.source.extract(snapshot, self.scratch / f"join-{i}", memory_bytes=memory, events=self.events)
            for i, (join, snapshot) in enumerate(zip(self.recipe.join, self.survey.joined, strict=True))
        ]
        self._type_lookups()
        if not self.main.rows:
            files = ", ".join(self.paths[:5])
            unread = f" {self.main.rejected:,} rows could not be read." if self.main.rejected else ""
            raise ContractError(
                f"there are no rows to learn from in {files}.{unread} Check the path, and how the files are"
                " read."
            )
        names = [name for extract in (self.main, *self.lookups) for name in extract.schema.names]
        reserved = [name for name in names if name.startswith("__p_") or name in _OURS]
        if reserved:
            raise SourceError(
                f"the columns {', '.join(map(repr, reserved))} have names that Penstock keeps for itself"
                f" ({ROW_FILE}, {ROW_NUMBER}, and what begins with __p_). Rename them in the source."
            )
        problems = column_problems(
            self.recipe, column_names(self.main), [column_names(lookup) for lookup in self.lookups]
        )
        problems += self._split_problems()
        if problems:
            raise RecipeError.of(problems, where=f"the recipe {self.recipe.name!r}")

        self.aside = BlobStore(self.scratch / "aside", memory_bytes=memory)
        self.main = self.aside.take(
            self.main, large_columns(self.recipe, self.main), "source", owned=self.scratch
        )
        for i, join in enumerate(self.recipe.join):
            self.lookups[i] = self.aside.take(
                self.lookups[i],
                large_columns(self.recipe, self.lookups[i]),
                f"join-{i}",
                prefix=join.prefix,
                owned=self.scratch,
            )
        self.ledger.aside = self.aside

    def _type_lookups(self) -> None:
        """Read the keys of joined sources as ours are, where only one of the two is text: what is written
        `007` or `1.50` would be another text once it had been taken for a number, and the rows would not find
        each other.
        """
        for i, join in enumerate(self.recipe.join):
            types = other_types(join, self.main.schema, self.lookups[i].schema)
            if not types:
                continue
            named = ", ".join(f"{field.name!r} as {field.type}" for field in types)
            self.events.say(f"join[{i}]: the joined source is read with {named}, as it is here", join=i)
            self.lookups[i] = join.source.typed(types).extract(
                self.survey.joined[i],
                self.scratch / f"join-{i}-typed",
                memory_bytes=self.recipe.resources.memory,
                events=Events(),
            )

    def crunch(self, session: EngineSession) -> dict[str, Any]:
        """From extracts to written rows; what the manifest says of them."""
        recipe, ledger = self.recipe, self.ledger
        with ledger:
            rejected = ledger.rejects(self.main.rejects)
            table = self._identify(session)
            for i, join in enumerate(recipe.join):
                table = self._join(session, table, i, join)
            table = self._where(session, table)
            table = self._sample(session, table)
            table = self._derive(session, table)
            table = self._expect(session, table)
            table = self._clean(session, table)
            kept = self._split(session, table)
            final, facts = self._fitted(session, kept)
            written = self._write(session, final, counted=any(ledger.counts[name] for name in SPLITS))
        self._step("profile")
        train = sorted((written / "split=train").glob("*.parquet"))
        self._save("profile.json", profile(session, train))
        made: dict[str, Any] = {
            "counts": ledger.balance(self.main.rows + rejected),
            "quarantine": list(ledger.reasons.values()),
            "schema": {name: str(kind) for name, kind in session.read(train).schema().items()},
            "facts": {str(place): found for place, found in facts.items()},
        }
        if recipe.split.by in ("files", "column"):
            made["overlap"] = self._overlap(session, final)
        self._warn_of_quarantine()
        return made

    def _identify(self, session: EngineSession) -> ir.Table:
        self._step("row ids")
        if ROW_ID in self.main.schema.names:
            self.events.say(
                f"the source has a column {ROW_ID!r}, which is Penstock's own word; it is called"
                f" 'source_{ROW_ID}' here"
            )
        table = read_extract(session, self.main)
        return (
            by_key(session, table, list(self.recipe.key), self.ledger)
            if self.recipe.key
            else by_place(session, table, self.files)
        )

    def _join(self, session: EngineSession, table: ir.Table, number: int, join: Join) -> ir.Table:
        self._step(f"join {number}")
        extract = self.lookups[number]
        if extract.rejected:
            # rows of another source: kept, but no rows of ours
            folder = self.folder / f"quarantine-join-{number}"
            with Ledger(folder, [file.path for file in self.survey.joined[number].files]) as aside:
                aside.rejects(extract.rejects)
            self.events.warn(
                f"join[{number}]: {extract.rejected:,} rows of the joined source could not be read; they"
                f" bring nothing, and are in {folder.name}",
                rows=extract.rejected,
            )
        return ToOne(session, join, extract, word=f"join[{number}]").onto(
            table, self.ledger, self.events, self.paths
        )

    def _where(self, session: EngineSession, table: ir.Table) -> ir.Table:
        if self.recipe.where is None:
            return table
        self._step("where")
        self._typed(session, table, [(("where",), self.recipe.where)], condition=True)
        keeps = session.sql(table, self.recipe.where).fill_null(False)
        self.ledger.counts["filtered"] += int(
            session.rows(table.aggregate(n=(~keeps).cast("int64").sum()))[0]["n"] or 0
        )
        return table.filter(keeps)

    def _sample(self, session: EngineSession, table: ir.Table) -> ir.Table:
        """The rows with the smallest digests; as row ids differ, exactly so many."""
        if self.recipe.sample is None:
            return table
        self._step("sample")
        chance = md5(table[ROW_ID] + f"|sample:{self.recipe.seed}")
        rows = session.count(table)
        if rows <= self.recipe.sample:
            return table
        chosen = table.select(__p_chance=chance).order_by("__p_chance").limit(self.recipe.sample)
        last = session.rows(chosen.aggregate(last=chosen["__p_chance"].max()))[0]["last"]
        self.ledger.counts["filtered"] += rows - self.recipe.sample
        return table.filter(chance <= last)

    def _derive(self, session: EngineSession, table: ir.Table) -> ir.Table:
        problems: list[Problem] = []
        for name, text in self.recipe.derive.items():
            found = typed_problems(session, table, [(("derive", name), text)], condition=False)
            problems += found
            if not found:
                table = derive(table, {name: text}, session)
        if problems:
            raise RecipeError.of(problems, where=f"the recipe {self.recipe.name!r}")
        return table

    def _expect(self, session: EngineSession, table: ir.Table) -> ir.Table:
        if not self.recipe.expect:
            return table
        self._step("expect")
        judged = expect(table, self.recipe.expect, session=session, events=self.events, paths=self.paths)
        return self.ledger.sift(session, judged, "expect") if REASON in judged.columns else judged

    def _clean(self, session: EngineSession, table: ir.Table) -> ir.Table:
        """Cleaners that learn nothing; what the global ones drop is counted."""
        before, _ = around_split(self.recipe.clean)
        if said := moved(self.recipe.clean):
            self.events.say(said)
        known: int | None = None
        for i, cleaner in before:
            self._step(f"clean {cleaner.type}")
            self._typed(
                session,
                table,
                [(("clean", i, word), text) for word, text in cleaner.expressions().items()],
                condition=True,
            )
            if cleaner.form != "global":
                table = _same_columns(cleaner, table, cleaner.mend(table, {}, session))
                continue
            known = session.count(table) if known is None else known
            table = self._mend_all(cleaner, table, session)
            left = session.count(table)
            self.ledger.counts[cleaner.drops] += known - left
            known = left
        return table

    def _mend_all(self, cleaner: Cleaner, table: ir.Table, session: EngineSession) -> ir.Table:
        """A global cleaner over all rows; over training rows alone where it removes duplicates and files give
        the splits.
        """
        if cleaner.drops != "duplicates" or self.recipe.split.by != "files":
            return _same_columns(cleaner, table, cleaner.mend(table, {}, session))
        given = [i for i, file in enumerate(self.files) if file.split in ("validation", "test")]
        ours = table.filter(~table[ROW_FILE].isin(given))
        mended = cleaner.mend(ours, {}, session)
        return (
            table
            if mended is ours
            else _same_columns(cleaner, table, mended).union(table.filter(table[ROW_FILE].isin(given)))
        )

    def _split(self, session: EngineSession, table: ir.Table) -> ir.Table:
        """Rows with their split: computed once and kept, unless they can be written at once."""
        self._step("split")
        recipe = self.recipe
        seed = recipe.seed if recipe.split.seed is None else recipe.split.seed
        assigned = assign(
            table,
            recipe.split,
            seed=seed,
            files=[file.split for file in self.files],
            session=session,
            events=self.events,
        )
        if self._at_once(session, assigned):
            return assigned.drop(COLUMN, REASON)
        if is_wide(table):
            kept = session.beside(table, session.keep(assigned.select(*PLACE, SPLIT, COLUMN, REASON)))
        else:
            kept = session.keep(assigned)
        sifted = self.ledger.sift(session, kept, "split")
        self._placed(
            {row[SPLIT]: row["n"] for row in session.rows(sifted.group_by(SPLIT).aggregate(n=sifted.count()))}
        )
        return sifted

    def _at_once(self, session: EngineSession, table: ir.Table) -> bool:
        """Whether nothing needs a second look at the rows: the split places each row by itself, no step needs
        all rows, and values are of types that come back from Parquet as they went.
        """
        clean, split = self.recipe.clean, self.recipe.split
        simple = (
            split.by == "hash"
            and not split.stratify
            and not around_split(clean)[1]
            and all(cleaner.form != "global" for cleaner in clean)
        )
        return session.deals_out and simple and all(_lasting(kind) for kind in table.schema().values())

    def _placed(self, counts: Mapping[str, int]) -> None:
        """Write down how many rows each split has.

        Raises:
            ContractError: none is left to train on.
        """
        recipe = self.recipe
        self.ledger.counts |= {name: int(counts.get(name, 0)) for name in SPLITS}
        if not counts.get("train"):
            raise ContractError(
                f"no row is left to train on: {self.ledger.sentence()}. Look at `where`, `expect` and"
                f" `split`; the quarantine would say why rows were put aside: {self._why()}"
            )
        for name, share in (("validation", recipe.split.validation), ("test", recipe.split.test)):
            if not counts.get(name) and share and recipe.split.by != "files":
                self.events.warn(f"no row fell to {name}, with {sum(counts.values()):,} rows in all")

    def _fitted(self, session: EngineSession, table: ir.Table) -> tuple[ir.Table, dict[int, dict[str, Any]]]:
        """Cleaners that learn from the training split; each sees what those before it mended."""
        facts: dict[int, dict[str, Any]] = {}
        for i, cleaner in around_split(self.recipe.clean)[1]:
            self._step(f"clean {cleaner.type}")
            facts[i] = cleaner.fit(table.filter(table[SPLIT] == "train"), session)
            table = _same_columns(cleaner, table, cleaner.mend(table, facts[i], session))
        return table, facts

    def _write(self, session: EngineSession, table: ir.Table, *, counted: bool) -> Path:
        """Every split in the order of row ids.

        Returns the folder of what the engine wrote, with stand-ins for large values.

        Args:
            counted: the ledger knows already how many rows each split has.
        """
        self._step("write")
        columns, rows = _written(table), self.folder / "rows"
        made = self.scratch / "written" if self.aside.columns & set(columns) else rows
        folders = {name: made / f"split={name}" for name in SPLITS}
        count = sum(self.ledger.counts[name] for name in SPLITS) if counted else self.main.rows
        written = session.write_parts(table.select(*columns, SPLIT), SPLIT, folders, rows=count)
        if not counted:
            self._placed(written)
        for name, folder in folders.items():
            if made != rows:
                written[name] = self.aside.give_back(
                    sorted(folder.glob("*.parquet")), rows / folder.name / "part-0.parquet"
                )
            if written[name] != self.ledger.counts[name]:
                raise PenstockError(
                    f"{self.ledger.counts[name]:,} rows belong to {name}, but {written[name]:,} were written."
                    " This is a defect of Penstock; nothing was kept."
                )
        return made

    def _overlap(self, session: EngineSession, table: ir.Table) -> dict[str, Any]:
        """How many rows of the given splits have an equal in train; nothing is removed."""
        columns = [name for name in _written(table) if name != ROW_ID]
        digested = row_digests(session, table, columns, [ROW_ID, SPLIT]).drop(ROW_ID)
        train = digested.filter(digested[SPLIT] == "train").select("__p_digest").distinct()
        given = digested.filter(digested[SPLIT] != "train").semi_join(train, "__p_digest")
        counts = {
            row[SPLIT]: int(row["n"])
            for row in session.rows(given.group_by(SPLIT).aggregate(n=given.count()))
        }
        overlap = {name: counts.get(name, 0) for name in ("validation", "test")}
        if overlap["test"]:
            self.events.say(
                f"{overlap['test']:,} of {self.ledger.counts['test']:,} rows of the given test split are also"
                " in train; the test split is left as it was given",
                overlap=overlap,
            )
        return {**overlap, "means": _OVERLAP_MEANS}

    # -- small change ----------------------------------------------------------------------------------------

    def _split_problems(self) -> list[Problem]:
        given = [file.split for file in self.files]
        if self.recipe.split.by == "files" and "train" not in given:
            return [
                Problem(
                    ("split", "by"),
                    "is `files`, but the source names no file under `train`; give it `train:` and `test:`"
                    " instead of `path:`",
                )
            ]
        if self.recipe.split.by != "files" and any(given):
            return [
                Problem(
                    ("split", "by"),
                    f"is `{self.recipe.split.by}`, but the source gives files for each split; say `by:"
                    " files`, or list all files under `path` to mix them",
                )
            ]
        return []

    def _typed(
        self,
        session: EngineSession,
        table: ir.Table,
        expressions: list[tuple[tuple[str | int, ...], str]],
        *,
        condition: bool,
    ) -> None:
        if problems := typed_problems(session, table, expressions, condition=condition):
            raise RecipeError.of(problems, where=f"the recipe {self.recipe.name!r}")

    def _step(self, step: str) -> None:
        self._steps += 1
        self.events.progress("prepare", self._steps, None, "steps", step=step)

    def _save(self, name: str, data: dict[str, Any]) -> None:
        import json

        with as_store_error(self.folder / name):
            (self.folder / name).write_text(json.dumps(data, indent=1, ensure_ascii=False), "utf-8")

    def _why(self) -> str:
        told = [
            f"{entry['rows']:,} at {entry['stage']}"
            + (f" ({entry['column']}: {entry['example']})" if entry["column"] else f" ({entry['example']})")
            for entry in self.ledger.reasons.values()
        ]
        return "; ".join(told[:5]) or "none were"

    def _warn_of_quarantine(self) -> None:
        if self.ledger.counts["quarantined"]:
            self.events.warn(
                f"{self.ledger.counts['quarantined']:,} rows are in quarantine: {self._why()}",
                rows=self.ledger.counts["quarantined"],
            )


def _written(table: ir.Table) -> list[str]:
    """The columns of a dataset: `row_id` first."""
    return [ROW_ID, *(name for name in table.columns if name not in (ROW_ID, SPLIT, *_OURS))]


def _lasting(kind: Any) -> bool:
    """Whether values of a type come back from Parquet in that type, on every engine."""
    if kind.is_array():
        return _lasting(kind.value_type)
    if kind.is_timestamp():
        return kind.scale in (None, 6)
    return bool(
        kind.is_integer()
        or kind.is_floating()
        or kind.is_boolean()
        or kind.is_string()
        or kind.is_binary()
        or kind.is_date()
        or kind.is_null()
    )


def _same_columns(cleaner: Cleaner, before: ir.Table, after: ir.Table) -> ir.Table:
    """A cleaner mends values; it must not change what columns there are."""
    if set(after.columns) != set(before.columns):
        raise PenstockError(
            f"the cleaner {cleaner.type!r} changed the columns:"
            f" {sorted(set(after.columns) ^ set(before.columns))}. It may only mend values."
        )
    return after.select(*before.columns)


def _lineage(recipe: Recipe, survey: _Survey, work: _Work) -> dict[str, Any]:
    def files(snapshot: Snapshot) -> list[dict[str, Any]]:
        return [
            {
                "path": f.path,
                "url": redacted_url(f.url),
                "size_bytes": f.size_bytes,
                "sha256": f.sha256,
                "split": f.split,
            }
            for f in snapshot.files
        ]

    return {
        "source": files(survey.snapshot),
        "joined": [
            {"files": files(s), "rows": e.rows, "rejected": e.rejected}
            for s, e in zip(survey.joined, work.lookups, strict=True)
        ],
        "declared": without_secrets(recipe.data_identity()),
        "reading": without_secrets(recipe.source.to_dict()),
        "engine": without_secrets(recipe.engine.to_dict()),
        "penstock": __version__,
    }
