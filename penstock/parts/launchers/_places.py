"""A process's place, as whoever started it has written it into the environment: torchrun, Kubernetes, Slurm,
MPI. Pure: a mapping in, a `Place` out, or a sentence that says what is lacking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from penstock.core.errors import UserError

_PORTS = (20_000, 20_000)
"""The first port that Slurm's and MPI's jobs may meet at where none is given, and how many there are."""


@dataclass(frozen=True)
class Place:
    """Which of how many a process is, and where all of them meet."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int
    by: str
    """Who said so, as a user knows them."""
    attempt: str = "0"
    """Tells this start of the processes from those before it that may have met at the same place, where its
    starter numbers it alike for all.
    """
    is_hosted: bool = False
    """The meeting place is kept by whoever started the processes, not by rank 0."""


def place_of(environment: Mapping[str, str]) -> Place:
    """The place that these variables tell of; the first that are complete count: torchrun's, Kubernetes',
    Slurm's, MPI's.

    Raises:
        UserError: none are there, some are lacking, or they do not hold.
    """
    # A variable that is set to nothing counts as not there.
    env = {word: value for word, value in environment.items() if value != ""}
    # torchrun within a Slurm job finds both sets of variables; its own ranks are those
    # that count.
    if "RANK" in env:
        return _by_torchrun(env)
    if "JOB_COMPLETION_INDEX" in env:
        return _by_kubernetes(env)
    if "SLURM_PROCID" in env:
        return _by_slurm(env)
    for words in _MPI:
        if words.rank in env:
            return _by_mpi(env, words)
    raise UserError(
        "launcher: env reads its rank from the environment, but it has neither RANK"
        " and WORLD_SIZE (torchrun, Kubeflow) nor JOB_COMPLETION_INDEX (Kubernetes),"
        " SLURM_PROCID (srun), OMPI_COMM_WORLD_RANK or PMI_RANK (MPI). Start it with,"
        " say,  torchrun --nproc-per-node 2 -m penstock run RECIPE,  or use launcher:"
        " local"
    )


def _by_torchrun(env: Mapping[str, str]) -> Place:
    size = _number(env, "WORLD_SIZE", "RANK is set")
    # Without a number of its own, a meeting place on this machine means that all are on it.
    is_one_machine = env.get("MASTER_ADDR", "") in ("127.0.0.1", "localhost", "::1")
    return _checked(
        env,
        _number(env, "RANK", ""),
        size,
        _number(env, "LOCAL_RANK", "", default=0),
        _number(env, "LOCAL_WORLD_SIZE", "", default=size if is_one_machine else 1),
        "torchrun" if "TORCHELASTIC_RUN_ID" in env else "RANK and WORLD_SIZE",
        attempt=env.get("TORCHELASTIC_RUN_ID", "0"),
        is_hosted=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _by_kubernetes(env: Mapping[str, str]) -> Place:
    return _checked(
        env,
        _number(env, "JOB_COMPLETION_INDEX", ""),
        _number(env, "WORLD_SIZE", "Kubernetes set JOB_COMPLETION_INDEX"),
        0,
        1,
        "Kubernetes",
        attempt=env.get("JOB_ATTEMPT", "0"),
    )


def _by_slurm(env: Mapping[str, str]) -> Place:
    # A step's own numbers count before its job's: `srun` may start fewer than were allotted.
    word = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    size = _number(env, word, "Slurm set SLURM_PROCID")
    nodes = nodes_of(
        env.get("SLURM_STEP_NODELIST")
        or env.get("SLURM_JOB_NODELIST")
        or env.get("SLURM_NODELIST")
        or ""
    )
    tasks = _tasks_here(
        env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE") or "",
        _number(env, "SLURM_NODEID", "", default=0),
    )
    # Where Slurm says nothing, as many as even nodes would have.
    local_size = tasks or max(1, -(-size // max(len(nodes), 1)))
    # The first node of the list is taken for rank 0's; on a single one loopback will
    # do.
    host = "127.0.0.1" if len(nodes) == 1 else nodes[0] if nodes else None
    return _checked(
        env,
        _number(env, "SLURM_PROCID", ""),
        size,
        _number(env, "SLURM_LOCALID", "", default=0),
        min(local_size, size),
        "Slurm",
        host=host,
        key=f"{env.get('SLURM_JOB_ID', '0')}{env.get('SLURM_STEP_ID', '0')}",
        attempt=env.get("SLURM_RESTART_COUNT", "0"),
    )


def _tasks_here(text: str, node: int) -> int:
    """How many tasks a node has by Slurm's short form, such as `2(x3),1` for three nodes of two and one of
    one; 0 where it does not say.
    """
    first = 0
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:\(x(\d{1,6})\))?", part.strip())
        if match is None:
            return 0
        first += int(match[2] or 1)
        if node < first:
            return int(match[1])
    return 0


class _Words(NamedTuple):
    """The variables of one implementation of MPI."""

    by: str
    rank: str
    size: str
    local_rank: str
    local_size: str


_MPI = (
    _Words(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Words("MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


def _by_mpi(env: Mapping[str, str], words: _Words) -> Place:
    size = _number(env, words.size, f"{words.by} set {words.rank}")
    local_size = _number(env, words.local_size, "", default=1)
    return _checked(
        env,
        _number(env, words.rank, ""),
        size,
        _number(env, words.local_rank, "", default=0),
        local_size,
        words.by,
        # Loopback where all ranks are on this machine; MPI's variables name no other
        # one.
        host="127.0.0.1" if local_size == size else None,
        key=env.get("OMPI_MCA_ess_base_jobid")
        or env.get("PMIX_NAMESPACE")
        or env.get("PMI_JOBID")
        or "0",
    )


def _checked(
    env: Mapping[str, str],
    rank: int,
    size: int,
    local_rank: int,
    local_size: int,
    by: str,
    *,
    host: str | None = None,
    key: str | None = None,
    attempt: str = "0",
    is_hosted: bool = False,
) -> Place:
    if size < 1 or not 0 <= rank < size:
        raise UserError(
            f"launcher: env: by {by} this is rank {rank} of {size}; ranks count from 0 and there is at least"
            " one process."
        )
    # A single process meets nobody, so no address has to be known.
    if size == 1:
        return Place(0, 1, 0, 1, "127.0.0.1", 0, by, attempt)
    host = env.get("MASTER_ADDR") or host
    if host is None:
        raise UserError(
            f"launcher: env: by {by} this is rank {rank} of {size}, and nothing says where they meet. Set"
            " MASTER_ADDR to a name of the machine of rank 0 that the others can reach."
        )
    if "MASTER_PORT" in env:
        port = _number(env, "MASTER_PORT", "")
    elif key is None:
        raise UserError(
            f"launcher: env: by {by} this is rank {rank} of {size}, and MASTER_PORT is not set: a free port"
            f" on {host}, the same for all of them."
        )
    else:  # every process of a job works out the same port from its id
        # Not by `hash`, which is another in every process. The power of 31 makes the
        # order of letters count.
        port = (
            _PORTS[0]
            + sum(ord(letter) * 31**i for i, letter in enumerate(key)) % _PORTS[1]
        )
    return Place(rank, size, local_rank, local_size, host, port, by, attempt, is_hosted)


def _number(
    env: Mapping[str, str], word: str, why: str, *, default: int | None = None
) -> int:
    if word not in env:
        if default is None:
            raise UserError(
                f"launcher: env: {why}, but {word} is not: how many processes there are. Whoever starts them"
                " sets both."
            )
        return default
    try:
        return int(env[word])
    except ValueError:
        raise UserError(
            f"launcher: env: {word} is {env[word]!r}; expected a whole number."
        ) from None


def nodes_of(text: str) -> list[str]:
    """Slurm's short form of names, written out: `node[01-03,7],gpu1` → node01, node02, node03, node7,
    gpu1.
    """
    nodes: list[str] = []
    # Commas part names, except within brackets.
    for word in re.findall(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)*", text):
        names = [""]
        for plain, inside in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", word):
            ends = (
                [plain]
                if plain
                else [number for part in inside.split(",") for number in _range(part)]
            )
            # Each further bracket multiplies the names.
            names = [name + end for name in names for end in ends]
        nodes += names
    return nodes


def _range(part: str) -> list[str]:
    low, dash, high = part.partition("-")
    return (
        # With its leading zeros: `[01-03]` begins with node01.
        [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]
        if dash
        else [part]
    )
