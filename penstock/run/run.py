"""Runs are begun, found and written to. One process at a time works on a run, of all that share its store:
it holds the run's lease (`core.lease`), and one that has lost it writes nothing more.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from penstock.core.errors import StoreError, UserError
from penstock.core.events import Events
from penstock.core.identity import new_ulid
from penstock.core.lease import Held, Holder, Lease, mine, take
from penstock.core.listeners import as_here
from penstock.core.markers import mark, marked
from penstock.core.mine import remember
from penstock.core.record import Torn, as_json, now
from penstock.core.redact import redacted_data
from penstock.core.store import FORMAT, Store, as_store_error, atomic_write, seal
from penstock.core.world import this_process, world_now
from penstock.recipe.code import code_of, modules_of, reaching
from penstock.recipe.schema import Recipe
from penstock.recipe.text import recipe_text
from penstock.run.record import STATUSES, WEIGHTS, RunRecord, origin_of

_AT_ONCE = 16
"""Runs of a bucket that are looked at together."""
_NAME = re.compile(r"run-[0-9a-z]+")
_SHORTEST = len("run-") + 4
"""Characters of a reference that may stand for a longer one."""


class Run(RunRecord):
    """One attempt, finished or not.

    Args:
        store: where it lies.
        id: `run-<ulid>`.
    """

    def __init__(self, store: Store, id: str) -> None:
        super().__init__(store, id)
        self._token = 0
        """Under which it was begun here (`core.lease`); 0: it was only opened."""

    # -- making and finding ----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        recipe: Recipe,
        dataset: str,
        feed: str,
        key: str,
        parent: str | None = None,
    ) -> Run:
        """Begin a diary.

        Args:
            store: where.
            recipe: what was declared.
            dataset: reference of the dataset version, `name@id`.
            feed: id of the feed.
            key: fingerprint of all that decides the answer; `find` looks a finished run up by it.
            parent: the run it goes back to, if any.

        Raises:
            StoreError: the store cannot be written.
        """
        id = f"run-{new_ulid()}"
        with as_store_error(store.folder):
            # Before the first file: from its first moment on, other machines can see
            # that it lives.
            lease = take(store.leased(id))
        path = store.workspace(f"runs/{id}")
        # `run.json` comes last of the three, since a run without it is not opened.
        atomic_write(path / "recipe.yaml", recipe_text(recipe))
        atomic_write(path / "world.json", as_json(world_now()))
        facts = {
            "format": FORMAT,
            "id": id,
            "name": recipe.name,
            "status": "running",
            "key": key,
            "dataset": dataset,
            "feed": feed,
            "parent": parent,
            "created": now(),
            "base": str(recipe.base),
            "process": this_process(),
            "token": lease.token,
        }
        atomic_write(path / "run.json", as_json(facts))
        # Noted outside of the store, where nobody else can write: only then is it
        # resumed without --trust.
        if reaching(recipe) or modules_of(recipe):
            remember(
                "run",
                id,
                {**origin_of(path, store, str(recipe.base)), "code": code_of(recipe)},
            )
        (path / "checkpoints").mkdir(exist_ok=True)
        # After run.json; a kill between the two costs one reading (`core.markers`).
        mark(store, "runs", key, id)
        run = cls(store, id)
        run._token = lease.token
        # Other machines see a run from its first moment, not from its first checkpoint.
        run._show("recipe.yaml", "world.json", "run.json")
        return run

    @classmethod
    def open(cls, store: Store, *, reference: str) -> Run:
        """The run `reference`, finished or not; the beginning of one is enough where no other begins so.

        Raises:
            UserError: there is none of that name, or several; says which there are.
            StoreError: its record cannot be read.
        """
        # One read answers the usual case; the listing is for the sentence below.
        if (
            _NAME.fullmatch(reference)
            and store.read(f"runs/{reference}", file="run.json") is not None
        ):
            return cls(store, reference)
        known = [
            id
            for name in store.folders("runs")
            if _NAME.fullmatch(id := name.split("/")[1])
        ]
        near = [id for id in known if id.startswith(reference)]
        # A run's id begins with the time of its making, so a short beginning says little.
        is_long = len(reference) >= _SHORTEST
        if reference not in known and is_long and len(near) == 1:
            return cls(store, near[0])
        if reference not in known and is_long and near:
            raise UserError(
                f"{reference!r} is the beginning of {len(near)} runs in the store {store.url}:"
                f" {', '.join(near[:10])}. Give more of it."
            )
        if reference not in known:
            recent = ", ".join(reversed(known[-5:]))
            raise UserError(
                f"There is no run {reference!r} in the store {store.url}. "
                + (f"The latest runs: {recent}." if known else "It has no runs.")
            )
        return cls(store, reference)

    @classmethod
    def find(cls, store: Store, *, key: str) -> Run | None:
        """The newest finished run with this key.

        One that was finished here while its bucket refused goes up now.

        Raises:
            StoreError: the bucket refuses still.
        """
        # Ids sort by time, so the newest finished one is met first.
        for id in reversed(cls._begun_for(store, key)):
            name = f"runs/{id}"
            if store.has(name) or (store.is_here(name) and cls(store, id).send()):
                return cls(store, id)
        return None

    @classmethod
    def left_off(cls, store: Store, *, key: str) -> list[Run]:
        """The runs with this key that were interrupted or failed, and that nobody works on; the newest
        first.
        """
        begun = [cls(store, id) for id in reversed(cls._begun_for(store, key))]
        # Watching one may take 30 s, so all are watched at once.
        statuses = cls.statuses(begun)
        return [
            run
            for run, status in zip(begun, statuses, strict=True)
            if status in ("interrupted", "failed")
        ]

    @classmethod
    def latest(cls, store: Store) -> Run | None:
        """The run that was begun last; None if there is none, or its record cannot be read."""
        ids = sorted(
            id
            # A folder may hold what is no run.
            for name in store.folders("runs")
            if _NAME.fullmatch(id := name.split("/")[1])
        )
        return _opened(store, ids[-1]) if ids else None

    @classmethod
    def all(cls, store: Store, *, but: Collection[str] = ()) -> list[Run]:
        """Every run, oldest first; of each only run.json is read.

        One whose record is not there or cannot be read is left out.

        Args:
            but: names (`runs/run-…`) of runs that are not wanted, and so not read.
        """
        ids = [name.split("/")[1] for name in store.folders("runs") if name not in but]
        # Local files are read faster than threads start.
        if not store.is_remote:
            return [run for run in map(partial(_opened, store), ids) if run is not None]
        with ThreadPoolExecutor(_AT_ONCE, "penstock-runs") as pool:
            return [
                run
                for run in pool.map(as_here(partial(_opened, store)), ids)
                if run is not None
            ]

    @staticmethod
    def statuses(runs: Sequence[Run]) -> list[str]:
        """`status` of each; those that must be watched are watched together."""
        with ThreadPoolExecutor(_AT_ONCE, "penstock-runs") as pool:
            return list(pool.map(as_here(_status), runs))

    @classmethod
    def _begun_for(cls, store: Store, key: str) -> list[str]:
        """The ids of the runs with this key, oldest first, in whatever state they are."""

        def key_of(id: str) -> str | None:
            run = _opened(store, id)
            return None if run is None else run.key

        ids = [name.split("/")[1] for name in store.folders("runs")]
        return marked(store, "runs", key, ids, key_of)

    # -- what is written -------------------------------------------------------------------------------------

    def record(self, facts: Mapping[str, Any]) -> None:
        """Put these facts into run.json.

        A finished run takes none. One that is interrupted or failed is free for others.

        Raises:
            StoreError: the run is finished, or the disk is full.
            LeaseLost: another process has taken it over.
        """
        if self._is_done():
            raise StoreError(
                f"{self.id} is finished, and a finished run is never changed."
            )
        if facts.get("status", "running") not in STATUSES:
            raise ValueError(
                f"a run's status is one of {', '.join(STATUSES)}; found {facts['status']!r}"
            )
        # Before anything is written: a process that was fenced off must not touch the
        # record.
        self._check_token()
        self._facts = {**self._facts, **redacted_data(dict(facts))}
        atomic_write(self.path / "run.json", as_json(self._facts))
        # An interrupted run is of use to other machines only once the bucket has it.
        if facts.get("status") in ("interrupted", "failed"):
            try:
                self.store.push(self._name)  # so that another machine can go on with it
            # The lease goes even if the bucket refuses, or nobody could go on with the
            # run.
            finally:
                self.rest()

    def begin(self, events: Events | None = None) -> None:
        """Take the run's lease, so that this process works on it and no other.

        Args:
            events: told where another machine's process must be watched before it is known whether it lives.

        Raises:
            UserError: the run is finished, or another living process works on it.
        """
        self._refuse_done()
        process = self._facts.get("process", {})
        is_mine = (
            process.get("pid") == os.getpid()
            and process.get("host") == socket.gethostname()
        )
        leased = self.store.leased(self.id)
        has_lease = self._is_of(leased.holder(leased.top()))
        # A process that holds no lease can only be judged by its pid or its diary's
        # age.
        if (
            self._facts.get("status") == "running"
            and not is_mine
            and not has_lease
            and self._lives_without_lease()
        ):
            raise self._taken(f"process {process.get('pid')} on {process.get('host')}")
        lease = mine(leased)
        # A lease of another `Run` object of this process does not serve: its token is
        # not ours.
        if lease is None or lease.token != self._token or lease.is_active:
            try:
                with as_store_error(self.store.folder):
                    lease = take(
                        leased,
                        # After a finished lease tokens begin anew; the run remembers
                        # how far they had come.
                        least=int(self._facts.get("token", 0)),
                        watching=partial(self._watching, events),
                    )
            except Held as error:
                raise self._taken(str(error.holder or "others")) from None
            self._token = lease.token
            self._come_up(lease)
        # From here on a second `begin` in this process is refused as well.
        lease.is_active = True
        self.record(
            {
                "status": "running",
                "process": this_process(),
                "error": None,
                "token": self._token,
            }
        )
        # So that other machines see the new process at once.
        self._show("run.json")

    def _show(self, *files: str) -> None:
        """Send small files to the bucket, so that other machines see who works on the run."""
        for file in files if self.store.is_remote else ():
            self.store.write_text(
                f"{self._name}/{file}", text=(self.path / file).read_text("utf-8")
            )

    def _come_up(self, lease: Lease) -> None:
        """Bring the local copy up to date after taking the lease, and remove what a
        killed process left.
        """
        try:
            # `before` is asked, not this lease: the copy here is the newest only if the
            # last holder was here.
            if self.store.is_remote:
                was_here = lease.leased.was_here(lease.before) if lease.before else None
                # Into the cache of the property, which would find out the same with
                # another request.
                self.__dict__["path"] = self.store.workspace(
                    self._name, was_here=was_here
                )
            # Another machine may have gone on since this object was made.
            self._facts = self._read_facts()
            self._refuse_done()
            for draft in self.path.glob(f".{WEIGHTS}.*"):  # of a process that was killed
                draft.unlink(missing_ok=True)
        # A lease on a run that could not be opened would lock everybody out.
        except BaseException:
            lease.release()
            raise

    def _refuse_done(self) -> None:
        if self._is_done():
            raise UserError(
                f"{self.id} is finished: nothing is left to resume. See it with: penstock"
                f" show {self.id}"
            )

    def _taken(self, by: str) -> UserError:
        return UserError(f"{self.id} is being trained by {by}. Stop that process first.")

    def _watching(self, events: Events | None, holder: Holder) -> None:
        if events is not None:
            events.say(
                f"{self.id} was started by {holder}, which did not report its end. Waiting up"
                f" to {holder.seconds:.0f} s to see whether it is still running"
            )

    def _check_token(self) -> None:
        if self._token:
            self.store.leased(self.id).check(self._token)

    @contextmanager
    def at_work(self, events: Events | None = None) -> Iterator[None]:
        """`begin`, for as long as the body runs; if the body fails, the lease is
        released for the next process.

        Raises:
            UserError: as `begin`.
        """
        self.begin(events)
        lease = mine(self.store.leased(self.id))
        try:
            yield
        except BaseException:
            self.rest()
            raise
        # Also after success: the object may live on in a session, and may begin again.
        finally:
            if lease is not None:
                lease.is_active = False

    @property
    def token(self) -> int:
        """The token of this process's lease on the run; 0 where it was not begun here."""
        return self._token

    def rest(self) -> None:
        """Release the lease: this process works on the run no longer, and another may
        begin.
        """
        lease = mine(self.store.leased(self.id))
        if lease is not None and lease.token == self._token:
            lease.release()

    def choose(self, chosen: Mapping[str, Any]) -> None:
        """Record in world.json what a measurement (or a rule) chose, under `chosen`."""
        world = self.world()
        atomic_write(
            self.path / "world.json",
            as_json({**world, "chosen": {**world.get("chosen", {}), **chosen}}),
        )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Close the diary: status `done`, checksums of every file, the manifest last; then up to the bucket,
        if it is one.

        Raises:
            StoreError: it is finished already, or cannot be written.
        """
        self.record({"status": "done", "finished": now(), "summary": dict(summary)})
        # Checked once more: a seal cannot be taken back.
        self._check_token()
        manifest = {
            word: self._facts.get(word)
            for word in (
                "id",
                "name",
                "key",
                "dataset",
                "feed",
                "parent",
                "created",
                "finished",
            )
        }
        # After `record`, so that the checksums cover run.json with its status `done`.
        seal(self.path, {"type": "run", **manifest})
        # If the bucket refuses, the run is finished here, and `find` or `resume` sends
        # it.
        self.store.push(self._name)
        # Ended, not released: nobody will need a higher token of a finished run.
        lease = mine(self.store.leased(self.id))
        if lease is not None and lease.token == self._token:
            lease.end()

    def send(self) -> bool:
        """Send a run to its bucket that was finished here while the bucket refused.
        Returns whether it was such a one.

        Raises:
            StoreError: the bucket refuses still.
        """
        name = f"runs/{self.id}"
        if (
            not self.store.is_remote
            or not self.store.is_here(name)
            or self.store.has(name)
        ):
            return False
        self.store.push(name)
        return True


def _status(run: Run) -> str:
    return run.status


def _opened(store: Store, id: str) -> Run | None:
    """A run, or None where its record is not there or cannot be read, or its name is no run's."""
    if _NAME.fullmatch(id) is None:
        return None
    try:
        return Run(store, id)
    # Torn alone: a newer format or a refusing bucket must be told, not skipped.
    except Torn:
        return None
