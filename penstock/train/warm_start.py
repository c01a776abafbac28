"""Starting from what was learnt earlier: the best weights of a run or of a bundle, as far as they fit.

Weights are found by name and shape: an encoder is called by its type and its feature, so `bio` of an earlier
model becomes `bio` of this one. That its tokens and classes mean the same is the feature's business
(`fitted_from`). Once training has begun all weights are in its own checkpoints: nobody needs the earlier
artefact any more.
"""

from __future__ import annotations

from pathlib import Path

from penstock.core.errors import StoreError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.reuse_fitted import columns_of, other_sorts
from penstock.model import networks_of
from penstock.nn.weights import read_tensors
from penstock.prepare.versions import open_version
from penstock.recipe.bundled import open_bundle
from penstock.recipe.schema import Recipe
from penstock.run import Run
from penstock.train.freezing import encoder_keys
from penstock.train.learner import Learner
from penstock.train.state_dict import load_weights


def weights_of(reference: str, store: Store) -> Path:
    """The weights of a finished run or of a bundle, verified.

    Raises:
        UserError: there is none of that name, or the run is not finished.
        StoreError: the weights were changed.
    """
    if reference.startswith("bundle-"):
        return open_bundle(store, reference) / "weights.safetensors"
    return Run.open(store, reference=reference).verified()


def tell_other_sorts(recipe: Recipe, dataset: str, store: Store, events: Events) -> None:
    """Warn of inputs whose columns have values of another sort here than where the weights of `train.from`
    were learnt.

    Args:
        dataset: reference of the version that is trained on.
    """
    declared = recipe.train.from_
    assert declared is not None
    inputs = {
        name: feature
        for name, feature in recipe.inputs.items()
        if not declared.only or name in declared.only
    }
    try:
        here = open_version(store, dataset).schema
        is_bundle = declared.weights.startswith("bundle-")
        there = (
            columns_of(store, declared.weights)
            if is_bundle
            else open_version(
                store, Run.open(store, reference=declared.weights).dataset
            ).schema
        )
    except StoreError:
        events.say(
            f"Cannot check whether the columns have the types that {declared.weights} was"
            " trained on: a dataset is no longer in the store"
        )
        return
    for text in other_sorts(inputs, here, there, declared.weights):
        events.warn(text)


def start_from(weights: Path, recipe: Recipe, learner: Learner, events: Events) -> None:
    """Take every tensor of an earlier model whose name and shape are equal; say which were not.

    Raises:
        UserError: nothing fits.
        RecipeError: `only` names no input.
    """
    declared = recipe.train.from_
    assert declared is not None
    theirs, ours = read_tensors(weights), learner.network.state_dict()
    members = list(networks_of(learner.network))
    # Every member of an ensemble starts from what one network has learnt.
    if len(members) > 1 and not any(name.startswith(members[0]) for name in theirs):
        theirs = {
            f"{m}{name}": tensor for m in members for name, tensor in theirs.items()
        }
    if declared.only:
        # With the dot, since `encoders.a` is also the beginning of `encoders.ab`.
        wanted = tuple(
            f"{member}encoders.{key}."
            for key in encoder_keys(
                learner.network, declared.only, recipe, ("train", "from", "only")
            )
            for member in members
        )
        theirs = {
            name: tensor for name, tensor in theirs.items() if name.startswith(wanted)
        }
        ours = {name: tensor for name, tensor in ours.items() if name.startswith(wanted)}
    # Other shapes are other vocabularies or widths: half a tensor would mean nothing.
    fitting = {
        name: tensor
        for name, tensor in theirs.items()
        if name in ours and ours[name].shape == tensor.shape
    }
    if not fitting:
        raise UserError(
            f"train.from: no tensor of {declared.weights} has the name and shape of a"
            " tensor of this model, so nothing could be taken over."
        )
    # What has no counterpart keeps its initial values.
    load_weights(learner, fitting, strict=False)
    # Else the average and the first agreement would begin at the random weights.
    if learner.average is not None:
        learner.average.begin()
    if learner.averaging is not None:
        learner.averaging.begin()
    left = [name for name in ours if name not in fitting]
    unused = [name for name in theirs if name not in fitting]
    text = (
        f"{len(fitting)} of {len(ours)} tensors{' of ' + ', '.join(declared.only) if declared.only else ''}"
        f" start from {declared.weights}"
    )
    for words, names in (
        ("these start anew", left),
        ("these of theirs fit nowhere", unused),
    ):
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            text += f"; {words}: {', '.join(names[:8])}{more}"
    events.say(text, taken=len(fitting), anew=left, unused=unused)


__all__ = ["start_from", "weights_of"]
