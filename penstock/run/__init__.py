"""The diary of one attempt at training: `runs/run-<ulid>/`.

    recipe.yaml         what was declared, whole (secrets are blanked, since others read it: `recipe.secret`)
    run.json            who, when, how it stands; rewritten atomically by `record`
    world.json          what the attempt depended on beyond the recipe: code and diff, packages, hardware, and
                        what a measurement chose (processes, threads), which resume and reproduce reuse
    events.jsonl        append-only
    checkpoints/, model.safetensors
    manifest.json       written last, by `finish`; its existence means that the run is done

A run grows in the open, so its state must survive a kill: a status "running" whose process is dead reads as
"interrupted". One process at a time works on a run, of all that share its store: it holds the run's lease
(`core.lease`), and one that has lost it writes nothing more. What this room refuses to know: what a trainer
does.
"""

from __future__ import annotations

from penstock.run.record import STATUSES as STATUSES
from penstock.run.record import WEIGHTS as WEIGHTS
from penstock.run.run import Run as Run
