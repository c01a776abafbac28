"""The steps of a preparation, from extracts to written rows.

Each step is an Ibis expression on the recipe's engine; nothing runs before it must. The rows are computed
once, on disk (`keep`), when their split is known; what stands before is scanned a second time only where a
count is owed (`where`, `expect`, a row to quarantine).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import PLACE, ROW_ID, EngineSession, is_wide
from penstock.contracts.digest import md5
from penstock.contracts.judge import COLUMN, REASON, SPLIT, Judge
from penstock.core.errors import (
    NothingLeft,
    PenstockError,
    Problem,
    RecipeError,
)
from penstock.core.events import Events
from penstock.core.store import Store, as_store_error
from penstock.prepare.agreed import contract_of
from penstock.prepare.changes import Changes
from penstock.prepare.clean import around_split, derive, moved
from penstock.prepare.clustering import lowest, write_splits
from penstock.prepare.dataset import SPLITS
from penstock.prepare.extraction import Extracts
from penstock.prepare.forgotten import left_out
from penstock.prepare.join import ToOne
from penstock.prepare.judging import Judging
from penstock.prepare.lasting import lasting
from penstock.prepare.ledger import DROPPED, Ledger
from penstock.prepare.overlap import overlap
from penstock.prepare.privacy import Privacy
from penstock.prepare.profile import profile
from penstock.prepare.recipe_columns import typed_problems
from penstock.prepare.repairs import refuse_unnamed, repair
from penstock.prepare.row_ids import by_key, by_place, read_extract, row_order
from penstock.prepare.split import assign
from penstock.prepare.survey import Survey
from penstock.prepare.validate import expect
from penstock.recipe.schema import ROW_ORDER, Join, Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir


@dataclass
class Preparation:
    """One preparation under way: `run` performs its steps in order."""

    recipe: Recipe
    events: Events
    folder: Path
    """Of the draft: what is written here becomes the dataset."""
    scratch: Path
    survey: Survey
    extracts: Extracts
    session: EngineSession
    profiled: bool = True
    """Whether the dataset is to have a profile; a dataset that is thrown away needs none."""
    store: Store | None = None
    """Where datasets are that rules compare with."""
    is_part: bool = False
    """Whether these are some of a version's files, the rows of the others being there already."""
    taken_facts: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    """What fitted cleaners learnt from a parent, by place; the others learn here."""

    def __post_init__(self) -> None:
        self.files = self.survey.snapshot.files
        self.paths = [file.path for file in self.files]
        self.ledger = Ledger(self.folder / "quarantine", self.files)
        self.ledger.blobs = self.extracts.blobs
        self.ledger.forgotten = self.survey.forgotten
        self.session.whole_values = self.extracts.blobs.whole_column
        self.contract: dict[str, Any] = {}
        self.unreadable = self.mended = 0
        self.changes = Changes(self.session, ledger=self.ledger)
        self.judging = Judging(self.recipe, self.session, self.changes, self.files)
        self._steps = 1  # extracting was the first
        self.privacy = Privacy(
            self.recipe, self.session, self.ledger, self.events, self._step
        )

    def run(self) -> dict[str, Any]:
        """Perform all steps, from extracts to written rows; returns what the manifest says of the
        rows.
        """
        recipe, ledger = self.recipe, self.ledger
        with ledger:
            table = self.before_contract()
            table = self._expect(table)
            table = self._clean(table)
            table = self.privacy.anonymous(self.privacy.protect(table))
            rows_split = self._split(table)
            final, facts = self._fitted(rows_split)
            for line in self.changes.sentences():
                self.events.say(line)
            # A split that places each row by itself has no counts before the rows are
            # written.
            written = self._write(
                final, counted=any(ledger.counts[name] for name in SPLITS)
            )
        # By name, which is the order of row ids.
        train = sorted((written / "split=train").glob("*.parquet"))
        if self.profiled:
            self._step("profile")
            some = lowest(recipe.cluster_by, self.session, train, self.scratch)
            self._save("profile.json", profile(self.session, train, sampled=some))
        manifest: dict[str, Any] = {
            "counts": ledger.balance(self._rows_in()),
            "quarantine": sorted(
                ledger.reasons.values(),
                # The commonest first; equal ones in an order that no engine decides.
                key=lambda e: (-e["rows"], e["stage"], e["column"] or "", e["example"]),
            ),
            "schema": {
                name: str(kind)
                for name, kind in self.session.read(train).schema().items()
            },
            # JSON has texts only for keys.
            "facts": {str(place): learnt for place, learnt in facts.items()},
        }
        if recipe.clean:
            # A manifest holds no row's values: examples are in a file of their own.
            manifest["changes"] = self.changes.to_dict(examples=False)
            self._save("changes.json", {"clean": self.changes.to_dict(examples=True)})
        manifest |= self.privacy.facts
        # Splits that are given may share rows by mistake; splits that are dealt out
        # come from one pile.
        if recipe.split.by in ("files", "column"):
            columns = [name for name in _written(final) if name != ROW_ID]
            manifest["overlap"] = overlap(
                self.session, final, columns, self.ledger.counts["test"], self.events
            )
        if self.contract:
            manifest["contract"] = self.contract
        ledger.warn(self.events)
        return manifest

    def before_contract(self) -> ir.Table:
        """The rows that come to the contract: with their ids, joined, filtered, derived."""
        # Before all others: rows that could not be read came in, too, so the
        # balance needs them.
        main = self.extracts.main
        table, lines = self._repaired(read_extract(self.session, main))
        self.unreadable = self.ledger.rejects(main.rejects, lines)
        refuse_unnamed(lines, main.rejected - self.unreadable)
        self.mended = len(lines)
        table = self._identify(table)
        for i, join in enumerate(self.recipe.join):
            table = self._join(table, i, join)
        table = self.privacy.govern(table)
        table = self._sample(self._where(table))
        return self.privacy.withhold_derived(self._derive(self._ordered(table)))

    def _rows_in(self) -> int:
        return self.extracts.main.rows + self.unreadable + self.mended

    def _repaired(self, table: ir.Table) -> tuple[ir.Table, set[tuple[str, int]]]:
        """The rows with mended ones in their places, and the lines of those that could not be read."""
        if (repairs := self.extracts.repairs) is None:
            return table, set()
        repaired = repair(table, repairs, self.files, self.session, self.events)
        return repaired.table, repaired.lines

    def _identify(self, table: ir.Table) -> ir.Table:
        self._step("row ids")
        if ROW_ID in self.extracts.main.schema.names:
            self.events.say(
                f"The source has a column {ROW_ID!r}, a name that Penstock reserves. It is"
                f" called 'source_{ROW_ID}' here"
            )
        self.privacy.withhold()
        return (
            by_key(
                self.session,
                table,
                list(self.recipe.key),
                self.ledger,
                private=self.recipe.private,
                select=self._remembered,
            )
            if self.recipe.key
            else self._remembered(by_place(self.session, table, self.files))
        )

    def _remembered(self, table: ir.Table) -> ir.Table:
        forgotten = self.survey.forgotten
        return left_out(table, forgotten, self.session, self.ledger.counts, self.events)

    def _join(self, table: ir.Table, number: int, join: Join) -> ir.Table:
        self._step(f"join {number}")
        extract = self.extracts.lookups[number]
        if extract.rejected:
            # rows of another source: kept, but no rows of ours
            folder = self.folder / f"quarantine-join-{number}"
            with Ledger(folder, self.survey.joined[number].files) as quarantine:
                quarantine.rejects(extract.rejects)
            self.events.warn(
                f"join[{number}]: {extract.rejected:,} rows of the joined source could not be"
                f" read. They are ignored, and are in {folder.name}",
                rows=extract.rejected,
            )
        return ToOne(self.session, join, extract, word=f"join[{number}]").onto(
            table, self.ledger, self.events, self.paths
        )

    def _where(self, table: ir.Table) -> ir.Table:
        if self.recipe.where is None:
            return table
        self._step("where")
        self._typed(table, [(("where",), self.recipe.where)], condition=True)
        # A condition that is null keeps no row, as WHERE in SQL.
        keeps = self.session.sql(table, self.recipe.where).fill_null(False)
        self.ledger.counts["filtered"] += int(
            # Without rows the sum is null.
            self.session.rows(table.aggregate(n=(~keeps).cast("int64").sum()))[0]["n"]
            or 0
        )
        return table.filter(keeps)

    def _sample(self, table: ir.Table) -> ir.Table:
        """Keep the `sample` rows with the smallest digests; as row ids differ, exactly that many."""
        if self.recipe.sample is None:
            return table
        self._step("sample")
        # A text of its own, so that being in the sample says nothing of the split that
        # a row goes to.
        chance = md5(table[ROW_ID] + f"|sample:{self.recipe.seed}")
        rows = self.session.count(table)
        if rows <= self.recipe.sample:
            return table
        # Only the digests are sorted. The rows are then filtered by the last of them,
        # so wide ones are neither sorted nor kept.
        chosen = (
            table.select(__p_chance=chance)
            .order_by("__p_chance")
            .limit(self.recipe.sample)
        )
        last = self.session.rows(chosen.aggregate(last=chosen["__p_chance"].max()))[0][
            "last"
        ]
        self.ledger.counts["filtered"] += rows - self.recipe.sample
        return table.filter(chance <= last)

    def _ordered(self, table: ir.Table) -> ir.Table:
        """With the rows' places, where they are what orders the steps of a series."""
        samples = self.recipe.samples
        if samples is None or samples.time is not None:
            return table
        if ROW_ORDER in table.columns:
            text = f"is {ROW_ORDER!r} unless given, and the source has a column of that name; name it here"
            raise RecipeError.of(
                [Problem(("samples", "time"), text)],
                where=f"the recipe {self.recipe.name!r}",
            )
        return table.mutate(**{ROW_ORDER: row_order(table)})

    def _derive(self, table: ir.Table) -> ir.Table:
        problems: list[Problem] = []
        for name, text in self.recipe.derive.items():
            # One after another, since each may use those above it. One that does not
            # hold is left out, so that the others are judged as well.
            own_problems = typed_problems(
                self.session, table, [(("derive", name), text)], condition=False
            )
            problems += own_problems
            if not own_problems:
                table = derive(table, {name: text}, self.session)
        if problems:
            raise RecipeError.of(problems, where=f"the recipe {self.recipe.name!r}")
        return table

    def _expect(self, table: ir.Table) -> ir.Table:
        if not self.recipe.expect and self.recipe.expect_table is None:
            return table
        self._step("expect")
        contract = contract_of(self.recipe, self.extracts, self.session, self.store)
        judged = expect(
            table,
            replace(contract, withheld=self.ledger.withheld),
            session=self.session,
            events=self.events,
            paths=self.paths,
        )
        self.contract = {"at": f"{contract.now.isoformat()}Z", "rules": judged.rules}
        if REASON not in judged.table.columns:
            # Without a broken promise `expect` gives the table back as it is, and no
            # pass is owed.
            return judged.table
        left = self.ledger.sift(self.session, judged.table, "expect", judged.marking)
        self.ledger.counts["filtered"] += judged.dropped
        return left.filter(~left[DROPPED].fill_null(False)).drop(DROPPED)

    def _clean(self, table: ir.Table) -> ir.Table:
        """Apply the cleaners that learn nothing, and count the rows that global ones drop."""
        before, _ = around_split(self.recipe.clean)
        if sentence := moved(self.recipe.clean):
            self.events.say(sentence)
        # A count is a pass over the rows: only a global cleaner owes one, and the next
        # begins with the last count.
        known: int | None = None
        for i, cleaner in before:
            self._step(f"clean {cleaner.type}")
            self._typed(
                table,
                [
                    (("clean", i, word), text)
                    for word, text in cleaner.expressions().items()
                ],
                condition=True,
            )
            if isinstance(cleaner, Judge):
                table, known = self.judging.judged(i, cleaner, table, {}), None
                continue
            if cleaner.form != "global" or cleaner.carries:
                table = self.changes.mended(i, cleaner, table, {})
                continue
            table = self.changes.settle(table)
            known = self.session.count(table) if known is None else known
            table = self.judging.mended(cleaner, table)
            left = self.session.count(table)
            self.ledger.counts[cleaner.drops] += known - left
            self.changes.drop(i, cleaner, rows_in=known, left=left)
            known = left
        return self.changes.settle(table)

    def _split(self, table: ir.Table) -> ir.Table:
        """Assign each row to a split; the result is kept on disk, unless `_at_once` says that it
        can be written directly.
        """
        self._step("split")
        recipe = self.recipe
        # A split with a seed of its own stays as it is when the recipe's seed changes.
        seed = recipe.seed if recipe.split.seed is None else recipe.split.seed
        assigned = assign(
            table,
            recipe.split,
            seed=seed,
            files=[file.split for file in self.files],
            session=self.session,
            events=self.events,
        )
        # A split by hash places every row, so there is no reason to sift by, and the
        # rows go straight to `_write`.
        if self._at_once(assigned):
            return assigned.drop(COLUMN, REASON)
        if is_wide(table):
            # A wide table is not sorted or copied for the sake of three columns: they are kept beside it.
            placed = self.session.keep(assigned.select(*PLACE, SPLIT, COLUMN, REASON))
            table_with_split = self.session.beside(table, placed)
        else:
            table_with_split = self.session.keep(assigned)
        # Rows that no rule could place leave here, before they are counted.
        sifted = self.ledger.sift(self.session, table_with_split, "split")
        counts = self.session.rows(sifted.group_by(SPLIT).aggregate(n=sifted.count()))
        self._placed({row[SPLIT]: row["n"] for row in counts})
        return sifted

    def _at_once(self, table: ir.Table) -> bool:
        """Whether rows can be written without being kept first: the split places each row by
        itself, no step needs all rows, and all types survive Parquet unchanged.
        """
        clean, split = self.recipe.clean, self.recipe.split
        simple = (
            # Any other split or cleaner reads the rows again, and rows that are not
            # kept are computed from the extracts each time.
            split.by == "hash"
            and not split.stratify
            and not self.recipe.cluster_by
            and not around_split(clean)[1]
            and all(cleaner.form != "global" for cleaner in clean)
        )
        return (
            self.session.deals_out
            and simple
            # Other types come back from Parquet changed, so they go through it on every
            # engine.
            and all(lasting(kind) for kind in table.schema().values())
        )

    def _placed(self, counts: Mapping[str, int]) -> None:
        """Write down how many rows each split has.

        Raises:
            NothingLeft: none is left to train on.
        """
        recipe = self.recipe
        self.ledger.counts |= {name: int(counts.get(name, 0)) for name in SPLITS}
        self._trainable()
        for name, share in (
            ("validation", recipe.split.validation),
            ("test", recipe.split.test),
        ):
            # Small data leaves a small share empty by chance; files that give a split
            # decide its size themselves.
            is_odd = share and recipe.split.by != "files" and not self.is_part
            if not counts.get(name) and is_odd:
                self.events.warn(
                    f"The split {name} is empty: there are only {sum(counts.values()):,} rows"
                )

    def _trainable(self) -> None:
        if not self.ledger.counts["train"] and not self.is_part:
            raise NothingLeft(
                f"no row is left to train on: {self.ledger.sentence()}. Look at `where`, `expect`, `clean`"
                f" and `split`. Rows were quarantined for these reasons: {self.ledger.why()}"
            )

    def _fitted(self, table: ir.Table) -> tuple[ir.Table, dict[int, dict[str, Any]]]:
        """Fit cleaners on the training split and apply them, one after another; returns the table
        and the facts by place.
        """
        facts = dict(self.taken_facts)
        for i, cleaner in around_split(self.recipe.clean)[1]:
            self._step(f"clean {cleaner.type}")
            # Only training rows teach, and they have passed the cleaners before this
            # one.
            if cleaner.is_fitted() and i not in facts:
                train = table.filter(table[SPLIT] == "train")
                facts[i] = cleaner.fit(train, self.session)
            learnt = facts.get(i, {})
            if isinstance(cleaner, Judge):
                table = self.judging.judged(i, cleaner, table, learnt)
                self._trainable()
            else:
                table = self.changes.mended(i, cleaner, table, learnt)
        return self.changes.settle(table), facts

    def _write(self, table: ir.Table, *, counted: bool) -> Path:
        """Every split in the order of row ids, or of `cluster_by`.

        Returns the folder of what the engine wrote, with stand-ins for large values.

        Args:
            counted: the ledger knows already how many rows each split has.
        """
        self._step("write")
        recipe, columns, rows = self.recipe, _written(table), self.folder / "rows"
        # With large values beside the engine, rows with stand-ins are written first,
        # and whole ones made of them.
        target = (
            self.scratch / "written"
            if self.extracts.blobs.columns & set(columns)
            else rows
        )
        folders = {name: target / f"split={name}" for name in SPLITS}
        # Without counts: as many as came in, which is near enough to share rows out.
        count = (
            sum(self.ledger.counts[name] for name in SPLITS)
            if counted
            else self.extracts.main.rows
        )
        chosen = table.select(*columns, SPLIT)
        written = write_splits(recipe, self.session, chosen, SPLIT, folders, rows=count)
        if not counted:
            self._placed(written)
        for name, folder in folders.items():
            if target != rows:
                written[name] = self.extracts.blobs.give_back(
                    sorted(folder.glob("*.parquet")),
                    rows / folder.name / "part-0.parquet",
                )
            # Both were counted by themselves, so a row lost between the split and the
            # disk is seen.
            if written[name] != self.ledger.counts[name]:
                raise PenstockError(
                    f"{self.ledger.counts[name]:,} rows belong to {name}, but {written[name]:,}"
                    " were written. This is a defect of Penstock; nothing was saved."
                )
        return target

    # -- small change ----------------------------------------------------------------------------------------

    def _typed(
        self,
        table: ir.Table,
        expressions: list[tuple[tuple[str | int, ...], str]],
        *,
        condition: bool,
    ) -> None:
        if problems := typed_problems(
            self.session, table, expressions, condition=condition
        ):
            raise RecipeError.of(problems, where=f"the recipe {self.recipe.name!r}")

    def _step(self, step: str) -> None:
        self._steps += 1
        self.events.progress("prepare", self._steps, None, "steps", step=step)

    def _save(self, name: str, data: dict[str, Any]) -> None:
        with as_store_error(self.folder / name):
            # An error of the disk names the file.
            (self.folder / name).write_text(
                json.dumps(data, indent=1, ensure_ascii=False), "utf-8"
            )


def _written(table: ir.Table) -> list[str]:
    """The columns of a dataset: `row_id` first."""
    return [
        # The id leads and the helpers are left out; the others keep the order of the
        # source.
        ROW_ID,
        *(name for name in table.columns if name not in (ROW_ID, SPLIT, *PLACE)),
    ]
