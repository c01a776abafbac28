"""The options of `penstock labels`."""

from __future__ import annotations

from penstock.cli.shared_options import Commands, plain_command, reading_options


def labels(commands: Commands) -> None:
    """`penstock labels`."""
    command = plain_command(
        commands,
        "labels",
        "find rows whose label is probably wrong, the worst first; nothing is changed",
        handler="labels",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a dataset, NAME@ID; a recipe (.yaml, .toml, .json); or a file, folder, glob or URL",
    )
    command.add_argument(
        "--target",
        metavar="COLUMN",
        help="the column with the labels, one class a row (default: the recipe's target)",
    )
    command.add_argument(
        "--split",
        choices=["train", "validation", "test", "all"],
        help="which rows to search (default: train; of a bare source, all)",
    )
    command.add_argument(
        "--top", type=int, default=50, metavar="N", help="how many to list (default: 50)"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write all suspects with their rows, the worst first (.parquet, .csv, .jsonl)",
    )
    command.add_argument(
        "--rank",
        choices=["self_confidence", "normalised_margin"],
        default="self_confidence",
        help="by the probability of the given label, or by how far it lies before the likeliest other"
        " (default: self_confidence)",
    )
    command.add_argument(
        "--folds",
        type=int,
        default=5,
        metavar="N",
        help="of the quick model (default: 5)",
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the folds (default: 0)"
    )
    reading_options(command, "source")
