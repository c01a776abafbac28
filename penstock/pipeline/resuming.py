"""Goes on with an interrupted run: its recipe is read as far as it is trusted, then training is taken up from
its last checkpoint.
"""

from __future__ import annotations

from typing import Any

from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Events
from penstock.core.interrupts import interrupts
from penstock.core.making import making
from penstock.encode.feed import Feed
from penstock.pipeline.keys import training_lock
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.stages import Pipeline
from penstock.pipeline.training import resume_advice, train_into
from penstock.recipe.code import reaching
from penstock.recipe.schema import OwnModel, Recipe
from penstock.run import Run


def recipe_to_resume(run: Run, trust: bool) -> Recipe:
    """What a run was declared with, to go on with it.

    Args:
        run: the run.
        trust: its recipe may bring code of its own, and reach other machines. What this user began here, with
            the very same code, needs none.

    Raises:
        UserError: it asks for more than its user has allowed.
    """
    why = None if trust else run.why_foreign()
    if why is None:
        return run.recipe(trust=True)
    how = (
        f"Resume it only if you trust where it came from ({why}). Then run:  penstock"
        f" resume {run.id} --trust"
    )
    # Read without trust, so that nothing of it runs before the user has allowed it.
    try:
        recipe = run.recipe()
    except RecipeError as error:
        raise UserError(
            f"{run.id} cannot be resumed as it is: {error.message}. {how}"
        ) from None
    # All that it reaches, in one sentence: the user decides once.
    asked = reaching(recipe)
    if isinstance(recipe.model, OwnModel):
        asked.append(f"its model is the code of {recipe.model.type}")
    if asked:
        raise UserError(
            f"{run.id} uses things that are not part of Penstock: {'; '.join(asked)}."
            f" {how}"
        )
    return recipe


def resume_run(run: Run, *, trust: bool, events: Events) -> Outcome:
    """Go on with a run; of one whose training has ended, with what is left of packing and evaluating.

    Args:
        run: interrupted, failed, or done without its later stages.
        trust: run the code that its recipe names, and reach the machines it names.

    Raises:
        UserError: nothing of it is left to do, or it asks for more than its user has allowed.
    """
    store = run.store
    is_done = run.status == "done"
    # Its training was done, and its way to the bucket was not.
    is_sent_now = is_done and run.send()
    recipe = recipe_to_resume(run, trust)

    # `of`: later stages take this run, not the newest of the same key.
    pipeline = Pipeline(recipe, store, events, of=run)

    # In a function of its own: of several processes that were started together only one
    # runs it.
    def go_on() -> dict[str, Any]:
        if is_done:
            outcome = pipeline.until("evaluate")
            # A run that was only to be sent has had its work done by `send`.
            if all(outcome.skipped.values()) and not is_sent_now:
                raise UserError(
                    f"{run.id} is trained, packed and evaluated: nothing is left to resume. See"
                    f" it with: penstock show {run.id}"
                )
            return outcome.named()
        _go_on_training(run, recipe, events)
        return pipeline.until("evaluate").named()

    named = recipe.launcher.lead(go_on)
    # Followers open what the leader made, by names: objects do not cross processes.
    return (
        Outcome.opened(named, store) if recipe.launcher.here().rank else pipeline.outcome
    )


def _go_on_training(run: Run, recipe: Recipe, events: Events) -> None:
    with interrupts.advice(resume_advice(run)):
        feed = Feed.open(run.store, id=run.feed)
        # Others that want this training wait for it; who names a run does not wait, since the run's own
        # lease guards it.
        with (
            events.stage("train", resumed=run.id),
            making(
                run.store,
                training_lock(run.key),
                f"the training of {run.name!r}",
                events,
                waits=False,
            ),
        ):
            train_into(run, recipe, feed, events, resume=True)
