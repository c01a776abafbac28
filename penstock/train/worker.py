"""The whole of training in one process: open what it needs, go through the epochs, return the summary."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from penstock.contracts.learn import World
from penstock.contracts.tasks import launchable
from penstock.core.events import Events
from penstock.train.loop import Loop
from penstock.train.session import Job, Session


@launchable
def work(world: World, job: Job, here: Events | None = None) -> dict[str, Any]:
    """Train in this process, together with the others; every process returns the same summary.

    Args:
        world: which process this is, of how many.
        job: what to train.
        here: listens if the process is the user's own.

    Raises:
        Interrupted, TrainingError, UserError: as `penstock.train.supervisor.train`.
    """
    # It closes in the reverse order, whatever ends the training: writer, group,
    # signals.
    with ExitStack() as stack:
        session = Session(stack, world, job, here)
        state = Loop(session, session.start_state()).run()
        return session.close(state)


__all__ = ["work"]
