"""Renders what a scheduler needs to run a recipe: a Kubernetes manifest, or a batch
script for Slurm.

Both start n processes of the same command, `penstock run`, with `launcher: env`: each finds its rank in what
the scheduler puts into its environment. The recipe travels inside, whole, so that what runs is what was
rendered. A manifest is read by others: secrets are named, never written, and a recipe with a password inside
a URL is refused.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from penstock._version import __version__
from penstock.core.credentials import VARIABLE
from penstock.core.errors import UserError
from penstock.core.redact import BLANK
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.secret import without_secrets
from penstock.recipe.text import recipe_text

SCHEDULERS = ("kubernetes", "slurm")
_MOUNT = "/penstock"
"""Where the claim is mounted: the recipe lies in it, so relative paths start there."""
_PORT = 29400
_GRACE_SECONDS = 120
"""Between being asked to end and being killed: time for a checkpoint."""
_TRIES = 3
_HEADROOM = 1.5
"""Of memory over what preparing keeps to: weights, batches, and the pages of files that are read."""


@dataclass(frozen=True)
class Wanted:
    """The resources that are asked of a cluster, beside the recipe."""

    processes: int
    cpus: int
    """For each process."""
    gpus: int
    memory_bytes: int
    """What preparing keeps to; each process."""
    hours: int
    image: str
    claim: str | None
    """The volume claim that every pod mounts; None where data and store are remote."""
    secrets: tuple[str, ...]


def _check_scheduler(scheduler: str, of_kubernetes: Mapping[str, Any]) -> None:
    if scheduler not in SCHEDULERS:
        raise UserError(
            f"There is no scheduler {scheduler!r}. There are {', '.join(SCHEDULERS)}"
        )
    # Refused, since a word without effect would be taken for one with.
    idle = [f"--{word}" for word, value in of_kubernetes.items() if value]
    if scheduler == "slurm" and idle:
        raise UserError(
            f"{' and '.join(idle)} mean{'s' if len(idle) == 1 else ''} nothing to slurm, whose tasks have the"
            " machine's own files and the environment that sbatch is started in. Leave it out, or print for"
            " kubernetes."
        )


def rendered(
    recipe: Recipe,
    scheduler: str,
    *,
    store: str | None = None,
    image: str | None = None,
    processes: int | None = None,
    gpus: int | None = None,
    claim: str | None = None,
    secrets: Sequence[str] = (),
    hours: int = 24,
) -> str:
    """Render the manifest or script.

    Args:
        recipe: its launcher says how many processes and accelerators, unless these do; it is replaced by
            `env`.
        scheduler: `kubernetes` or `slurm`.
        store: where every machine sees the store; the recipe's unless given.
        image: the container image (Kubernetes); `penstock:<version>` unless given.
        claim: the volume claim with data and store (Kubernetes); `penstock`, unless data and store are
            remote.
        secrets: names of Secrets whose keys become environment variables (Kubernetes).
        hours: how long it may take at most.

    Raises:
        UserError: there is no such scheduler; a word is not for it; the recipe has a password in it; a number
            is not positive.
    """
    _check_scheduler(scheduler, {"image": image, "claim": claim, "secret": secrets})
    declared = recipe.to_dict()
    launcher = declared.get("launcher", {})
    count = processes if processes is not None else _processes(launcher)
    if count < 1 or hours < 1:
        raise UserError(
            f"`--processes` and `--hours` must be at least 1; found {count} and {hours}"
        )
    each = (
        gpus
        if gpus is not None
        else int(launcher.get("gpus", launcher.get("use_gpu", 0)) or 0)
    )
    declared = {
        **declared,
        "launcher": {"type": "env"},
        **({"store": store} if store else {}),
    }
    # Loaded again, so that what is sent is known to be a valid recipe.
    sent = load_recipe(declared, base=recipe.base, name=recipe.name)
    text = recipe_text(sent)
    # Through JSON, so that tuples and lists compare alike.
    if without_secrets(sent.to_dict()) != json.loads(json.dumps(sent.to_dict())):
        raise UserError(
            "The recipe contains a password in a URL or another secret, and other people"
            f" can read a manifest. Write {BLANK} in its place, and pass it in the"
            f" environment ({VARIABLE}: see docs/security.md), for Kubernetes by a Secret"
            " that --secret names."
        )
    local = _local_paths(sent)
    wanted = Wanted(
        processes=count,
        cpus=recipe.resources.threads or 1,
        gpus=each,
        memory_bytes=recipe.resources.memory,
        hours=hours,
        image=image or f"penstock:{__version__}",
        claim=claim or ("penstock" if local else None),
        secrets=tuple(secrets),
    )
    return (_kubernetes if scheduler == "kubernetes" else _slurm)(
        sent, text, wanted, local
    )


def _processes(launcher: Mapping[str, Any]) -> int:
    """Return how many processes a launcher declares: the most of a range; one where it
    is a word such as `auto`.
    """
    declared = launcher.get("processes", 1)
    if isinstance(declared, (list, tuple)):
        return int(declared[-1])
    return declared if isinstance(declared, int) else 1


def _local_paths(recipe: Recipe) -> list[str]:
    """Return the paths of the recipe that are no URLs: every machine must have them."""
    declared = recipe.to_dict()
    paths: list[str] = []
    for source in (
        declared["source"],
        *(join["source"] for join in declared.get("join", ())),
    ):
        for part in (
            source,
            *(source.get(word) for word in ("train", "validation", "test")),
        ):
            value = part.get("path") if isinstance(part, Mapping) else part
            paths += [value] if isinstance(value, str) else list(value or ())
    return [path for path in dict.fromkeys([*paths, recipe.store]) if "://" not in path]


def _folder(recipe: Recipe, local: list[str]) -> str:
    """Return the folder of the recipe in the claim: deep enough that its relative paths
    stay within the claim.
    """
    depth = max(
        (
            len(path.split("/"))
            # The longest run of `..` at the beginning of a path.
            - len(path.removeprefix("../" * path.count("../")).split("/"))
            for path in local
            if path.startswith("../")
        ),
        default=0,
    )
    return (
        "/".join([_MOUNT, *recipe.base.absolute().parts[1:][-depth:]])
        if depth
        else _MOUNT
    )


def _name(recipe: Recipe) -> str:
    """Return the recipe's name as a DNS label, which Kubernetes asks for."""
    return (
        # A label has 63 characters at most; 40 leave room for the prefix and a pod's
        # index.
        re.sub(r"[^a-z0-9]+", "-", recipe.name.lower()).strip("-")[:40].rstrip("-")
        or "penstock"
    )


# -- Kubernetes ----------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes texts of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _kubernetes(recipe: Recipe, text: str, wanted: Wanted, local: list[str]) -> str:
    name = (
        f"penstock-{_name(recipe)}"
        if not _name(recipe).startswith("penstock")
        else _name(recipe)
    )
    labels = {"app.kubernetes.io/name": "penstock", "app.kubernetes.io/instance": name}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": {"recipe.yaml": text},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        # Rank 0 is to be found by its name before it is ready: the others wait for it.
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": name},
            "ports": [{"name": "meeting", "port": _PORT, "protocol": "TCP"}],
        },
    }
    folder = _folder(recipe, local)
    documents = [config, service, _job(name, labels, wanted, folder)]
    there = ", ".join(posixpath.normpath(posixpath.join(folder, path)) for path in local)
    head = [
        (
            f"# {wanted.processes} process{'es' if wanted.processes != 1 else ''} of `penstock run`, each a"
            f" pod; rendered by penstock {__version__}. Apply it with:  kubectl apply -f FILE"
        ),
        f"# It needs the image {wanted.image}, with Penstock {__version__} in it"
        + (
            f", and the claim {wanted.claim} (ReadWriteMany), mounted at {_MOUNT}, with: {there}"
            if wanted.claim and local
            else ""
        ),
    ]
    if wanted.secrets:
        head.append(
            f"# and the Secrets {', '.join(wanted.secrets)}, whose keys become environment variables."
        )
    return (
        "\n".join(head)
        + "\n"
        + "---\n".join(
            yaml.dump(
                document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=160
            )
            for document in documents
        )
    )


def _job(
    name: str, labels: Mapping[str, str], wanted: Wanted, folder: str
) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "completionMode": "Indexed",
            "completions": wanted.processes,
            "parallelism": wanted.processes,
            # When one pod is lost the others end, too, and each counts as a failure.
            "backoffLimit": _TRIES * wanted.processes,
            "activeDeadlineSeconds": wanted.hours * 3600,
            # The user's mistakes (2) and broken data (3) are not mended by trying again.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": "penstock",
                            "operator": "In",
                            "values": [2, 3],
                        },
                    }
                ]
            },
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": _pod(name, wanted, folder),
            },
        },
    }


def _pod(name: str, wanted: Wanted, folder: str) -> dict[str, Any]:
    """Describe the pod of one process; `folder` is where the recipe lies in it."""
    volumes: list[dict[str, Any]] = [
        {"name": "recipe", "configMap": {"name": name}},
        # PyTorch's processes hand each other tensors there; a container has 64 MiB of it by itself.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if wanted.claim:
        volumes.insert(
            0, {"name": "data", "persistentVolumeClaim": {"claimName": wanted.claim}}
        )
    return {
        "restartPolicy": "Never",
        "subdomain": name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "containers": [_container(name, wanted, folder)],
        "volumes": volumes,
    }


def _container(name: str, wanted: Wanted, folder: str) -> dict[str, Any]:
    requests: dict[str, Any] = {
        "cpu": str(wanted.cpus),
        "memory": _quantity(wanted.memory_bytes),
    }
    limits: dict[str, Any] = {"memory": _quantity(int(wanted.memory_bytes * _HEADROOM))}
    # Kubernetes takes accelerators from `limits` alone.
    if wanted.gpus:
        limits["nvidia.com/gpu"] = str(wanted.gpus)
    mounts: list[dict[str, Any]] = [
        {
            "name": "recipe",
            "mountPath": f"{folder}/recipe.yaml",
            "subPath": "recipe.yaml",
            "readOnly": True,
        },
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if wanted.claim:
        mounts.insert(0, {"name": "data", "mountPath": _MOUNT})
    container: dict[str, Any] = {
        "name": "penstock",
        "image": wanted.image,
        "command": ["penstock", "run", f"{folder}/recipe.yaml"],
        "env": [
            # Kubernetes itself sets JOB_COMPLETION_INDEX, which is the rank.
            {"name": "WORLD_SIZE", "value": str(wanted.processes)},
            {"name": "MASTER_ADDR", "value": f"{name}-0.{name}"},
            {"name": "MASTER_PORT", "value": str(_PORT)},
        ],
        "ports": [{"name": "meeting", "containerPort": _PORT}],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": mounts,
    }
    if wanted.secrets:
        # Named, never read: the manifest may be shown to anyone.
        container["envFrom"] = [
            {"secretRef": {"name": secret}} for secret in wanted.secrets
        ]
    return container


def _quantity(size_bytes: int) -> str:
    return f"{-(-size_bytes // 2**20)}Mi"


# -- Slurm ---------------------------------------------------------------------------------------------------


def _slurm(recipe: Recipe, text: str, wanted: Wanted, local: list[str]) -> str:
    # Slurm takes memory for each CPU.
    memory = -(-int(wanted.memory_bytes * _HEADROOM) // wanted.cpus // 2**20)
    lines = [
        "#!/bin/bash",
        (
            f"# {wanted.processes} process{'es' if wanted.processes != 1 else ''} of `penstock run`; rendered"
            f" by penstock {__version__}. Submit it from the recipe's folder:  sbatch FILE"
        ),
        *(
            [
                f"# Every machine must see, at the same place, that folder and: {', '.join(local)}"
            ]
            if local
            else []
        ),
        f"#SBATCH --job-name={_name(recipe)}",
        f"#SBATCH --ntasks={wanted.processes}",
        f"#SBATCH --cpus-per-task={wanted.cpus}",
        f"#SBATCH --mem-per-cpu={memory}M",
        *([f"#SBATCH --gpus-per-task={wanted.gpus}"] if wanted.gpus else []),
        f"#SBATCH --time={wanted.hours}:00:00",
        "# asked to end so long before it is killed: time for a checkpoint; requeued, it goes on from there",
        f"#SBATCH --signal=TERM@{_GRACE_SECONDS}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={_name(recipe)}-%j.log",
        "set -euo pipefail",
        'cd "$SLURM_SUBMIT_DIR"',
        'recipe=".penstock-$SLURM_JOB_ID.yaml"',
        # Quoted, so that the shell expands nothing within the recipe.
        "cat > \"$recipe\" <<'END OF THE RECIPE'",
        text.rstrip("\n"),
        "END OF THE RECIPE",
        (
            "# one rank lost ends all: the job is then requeued, or started again by you, and goes on from"
            " the last checkpoint"
        ),
        'exec srun --kill-on-bad-exit=1 penstock run "$recipe"',
    ]
    return "\n".join(lines) + "\n"


__all__ = ["SCHEDULERS", "Wanted", "rendered"]
