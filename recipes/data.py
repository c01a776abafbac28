"""Writes small data for the recipes beside this file: `python recipes/data.py [NAME …]`.

Three sets come with scikit-learn (`pip install 'penstock[train]'`), one is made up. All go to
`recipes/data/`. Pictures need `penstock[images]`.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

DATA = Path(__file__).parent / "data"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def tumours() -> None:
    """Breast cancer in Wisconsin (Wolberg, Street and Mangasarian 1993; UCI, CC BY 4.0): 569 tumours."""
    from sklearn.datasets import load_breast_cancer

    tumours = load_breast_cancer()
    header = [str(name).replace(" ", "_") for name in tumours.feature_names]
    rows = (
        [*map(float, values), tumours.target_names[label]]
        for values, label in zip(tumours.data, tumours.target, strict=True)
    )
    _write(DATA / "tumours.csv", [*header, "diagnosis"], rows)


def diabetes() -> None:
    """Diabetes (Efron et al. 2004): 442 patients, and how far the disease went in a year."""
    from sklearn.datasets import load_diabetes

    patients = load_diabetes(scaled=False)
    rows = (
        [*map(float, values), float(progress)]
        for values, progress in zip(patients.data, patients.target, strict=True)
    )
    _write(DATA / "diabetes.csv", [*patients.feature_names, "progression"], rows)


def digits() -> None:
    """Handwritten digits (Alpaydin and Kaynak 1998; UCI, CC BY 4.0): 1,797 pictures of 8 × 8 pixels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures = load_digits()
    for number, (pixels, label) in enumerate(
        zip(pictures.images, pictures.target, strict=True)
    ):
        # Every fifth picture examines.
        split = "test" if number % 5 == 0 else "train"
        folder = DATA / "digits" / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        # Pixels are 0 to 16.
        picture = Image.fromarray((pixels * 15.9375).astype("uint8"))
        picture.save(folder / f"{number:04d}.png")


def load() -> None:
    """A made series: a year of a town's electric load by the hour, with days, weeks, seasons and chance."""
    chance = random.Random(7)
    start, drift = datetime(2023, 1, 1), 0.0
    rows = []
    for hour in range(365 * 24):
        at = start + timedelta(hours=hour)
        # What chance does today is still felt tomorrow.
        drift = 0.97 * drift + chance.gauss(0, 0.6)
        day = math.sin(2 * math.pi * (at.hour - 7) / 24)
        season = math.cos(2 * math.pi * hour / (365 * 24))
        heat = 12 - 10 * season + 5 * day + chance.gauss(0, 1)
        working = 8 if at.weekday() < 5 else 0
        rows.append(
            [
                f"{at:%Y-%m-%d %H:%M}",
                round(60 + 12 * day + working - 0.5 * heat + drift, 2),
                round(heat, 1),
            ]
        )
    _write(DATA / "load.csv", ["time", "load", "temperature"], rows)


MAKERS = {"tumours": tumours, "diabetes": diabetes, "digits": digits, "load": load}


def main() -> None:
    """Write the sets that are named, or all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MAKERS))
    names = options.parse_args().names or list(MAKERS)
    if unknown := sorted(set(names) - set(MAKERS)):
        options.error(
            f"no set is called {', '.join(unknown)}; known: {', '.join(MAKERS)}"
        )
    for name in names:
        MAKERS[name]()
        print(f"wrote {name} to {DATA}")


if __name__ == "__main__":
    main()
