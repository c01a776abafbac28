"""What a run says of itself: its record as it was read, its status as it is now, and its files."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock.contracts.foreign import no_foreign_code
from penstock.core.credentials import address
from penstock.core.errors import StoreError
from penstock.core.identity import sha256_file
from penstock.core.lease import Holder, mine
from penstock.core.mine import recall
from penstock.core.page import facts_page
from penstock.core.paths import below
from penstock.core.record import checked_facts, json_of, lives
from penstock.core.store import MANIFEST, Artefact, Store
from penstock.recipe.code import source_digest
from penstock.recipe.schema import Recipe, load_recipe

STATUSES = ("running", "interrupted", "failed", "done")
WEIGHTS = "model.safetensors"


class RunRecord:
    """A run as its store has it, to be read.

    Args:
        store: where it lies.
        id: `run-<ulid>`.
    """

    def __init__(self, store: Store, id: str) -> None:
        self.store = store
        self.id = id
        self._facts: dict[str, Any] = self._read_facts()

    def __repr__(self) -> str:
        return f"Run({self.id!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        words = ("epochs", "best_epoch", "validation_loss", "seconds")
        summary = self.summary or {}
        facts = {
            "name": self.name,
            "status": self.status,
            "dataset": self.dataset,
            **{word.replace("_", " "): summary.get(word) for word in words},
        }
        return facts_page(self.id, facts)

    def facts(self) -> dict[str, Any]:
        """All of run.json, with the status as it is now."""
        return {**self._facts, "status": self.status}

    @property
    def key(self) -> str:
        """The fingerprint of all that decides what is learnt; runs with the same key learn the same."""
        return str(self._facts["key"])

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self._facts.get("name", ""))

    @property
    def dataset(self) -> str:
        """The dataset's reference, `name@id`."""
        return str(self._facts["dataset"])

    @property
    def feed(self) -> str:
        """The feed's id."""
        return str(self._facts["feed"])

    @property
    def parent(self) -> str | None:
        """The id of the run that this one goes on from; None where it began anew."""
        return self._facts.get("parent")

    @property
    def created(self) -> str:
        """UTC, as 2026-11-21T07:50:24Z."""
        return str(self._facts["created"])

    @property
    def summary(self) -> dict[str, Any] | None:
        """What training said at its end; None before."""
        return self._facts.get("summary")

    @cached_property
    def path(self) -> Path:
        """Its folder on this machine, with all that it holds: of a bucket, copied when it is first asked
        for.
        """
        return self.store.workspace(self._name)

    @property
    def _name(self) -> str:
        return f"runs/{self.id}"

    @property
    def status(self) -> str:
        """`running`, `interrupted`, `failed` or `done`; `running` only while its process lives.

        Whether a process of another machine lives is watched, which may take the seconds of its lease (30)
        the first time.
        """
        if self._is_done():
            return "done"
        status = str(self._facts.get("status"))
        # "done" without a manifest: it was killed between its last record and its seal.
        return (
            "interrupted"
            if status in ("running", "done") and not self._is_alive()
            else status
        )

    @property
    def was_interrupted(self) -> bool:
        """Whether its record says that it was stopped. Unlike `status`, this never
        watches a process.
        """
        return self._facts.get("status") == "interrupted" and not self._is_done()

    def _is_done(self) -> bool:
        # A holder knows without asking the bucket, which is asked at each `record`
        # otherwise.
        return self.store.is_here(self._name) or (
            self.store.is_remote
            and mine(self.store.leased(self.id)) is None
            and self.store.has(self._name)
        )

    def _is_alive(self) -> bool:
        leased = self.store.leased(self.id)
        top = leased.top()
        # A lease of another process tells nothing of the one that run.json names.
        return (
            leased.is_held(top)
            if self._is_of(leased.holder(top))
            else self._lives_without_lease()
        )

    def _is_of(self, holder: Holder) -> bool:
        """Whether a lease's holder is the process that run.json names."""
        process = self._facts.get("process", {})
        # Names of hosts and pids alone: a start time is in no lease.
        return holder.token > 0 and (holder.host, holder.pid) == (
            process.get("host"),
            process.get("pid"),
        )

    def _lives_without_lease(self) -> bool:
        """Whether a process lives that an earlier Penstock has begun, which knew no leases."""
        return lives(self._facts.get("process", {}), self.store.folder / self._name)

    def _file(self, name: str) -> Path:
        """A file or folder of the run; a link in a run from elsewhere must not lead what is written out of
        it.
        """
        return below(self.path, name, where=f"a file of {self.id}")

    def _own_file(self, name: str) -> Path:
        """As `_file`; of a finished run in a bucket that file alone is fetched."""
        # A finished run in a bucket whose folder nobody asked for: one file is far less
        # than all.
        is_afar = (
            self.store.is_remote
            and "path" not in self.__dict__
            and not self.store.is_here(self._name)
            and self._is_done()
        )
        return self.store.file(self._name, file=name) if is_afar else self._file(name)

    @property
    def events_path(self) -> Path:
        """The file with the run's events, one JSON object a line."""
        return self._file("events.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder with the run's checkpoints, on this machine's disk."""
        return self._file("checkpoints")

    @property
    def weights(self) -> Path:
        """The best weights, once training has ended."""
        return self._file(WEIGHTS)

    def recipe(self, *, trust: bool = False) -> Recipe:
        """The recipe that the run was begun with.

        Args:
            trust: it may bring code of its own; without, a recipe that names any is refused, or builds no
                model of its own.

        Raises:
            RecipeError: it names code of its own, and is not trusted.
            UserError: a secret that was blanked is not in the environment; says what to set.
        """
        file = self._own_file("recipe.yaml")
        if not file.is_file():
            raise StoreError(
                f"{self.path} has no recipe.yaml. It is not a run of Penstock, or was not"
                " written completely."
            )
        with nullcontext() if trust else no_foreign_code():
            return load_recipe(file, base=Path(self._facts["base"]), name=self.name)

    def why_foreign(self) -> str | None:
        """Why its code is not known to be this user's own; None where this user began it, here, with the very
        code that would run now.
        """
        noted = recall("run", self.id)
        if noted is None:
            return "this machine has no record of your having begun it"
        begun = origin_of(self.path, self.store, self._facts["base"])
        # By content and place: a copied run, or one whose recipe was edited, is
        # another's.
        if any(noted.get(word) != value for word, value in begun.items()):
            return "its recipe, or where it lies, is not what it was when you began it"
        code = noted.get("code")
        for module, digest in code.items() if isinstance(code, dict) else ():
            # None: the source could not be read when it began, so nothing vouches for
            # it now.
            if digest is None or digest != source_digest(module, self._facts["base"]):
                return f"the code of {module} was changed since it began, or is not found"
        return None

    def world(self) -> dict[str, Any]:
        """world.json: code, packages, hardware, and `chosen` once something was."""
        return self._read("world.json")

    def _read(self, file: str) -> dict[str, Any]:
        return json_of(
            self.store.read(f"runs/{self.id}", file=file),
            self.store.folder / "runs" / self.id / file,
        )

    def _read_facts(self) -> dict[str, Any]:
        return checked_facts(
            self._read("run.json"),
            self.store.folder / "runs" / self.id / "run.json",
            self.id,
        )

    def verified(self, name: str = WEIGHTS) -> Path:
        """A file of the run; for a finished run only if every byte of it is as it was sealed.

        Raises:
            StoreError: it is not there, or was changed.
        """
        if (
            self.store.is_remote
            and not self.store.is_here(self._name)
            and self._is_done()
        ):
            return self.store.file(
                self._name, file=name
            )  # held against its manifest as it comes
        # An unfinished run has no checksums to hold its files against.
        if (self.path / MANIFEST).is_file():
            Artefact.open(self.path, verify=True)
        if not self._file(name).is_file():
            raise StoreError(
                f"{self.id} ({self.status}) has no {name}: its training never came to an end. Finish it with:"
                f"  penstock resume {self.id}"
            )
        return self._file(name)


def origin_of(path: Path, store: Store, base: str) -> dict[str, str]:
    """What tells a run that was begun here from a copy or a changed one: store, folder,
    and the recipe's SHA-256.
    """
    return {
        "store": address(store.url),
        "base": base,
        "recipe": sha256_file(path / "recipe.yaml"),
    }
