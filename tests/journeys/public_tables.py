"""Made tables in the shapes of well-known public data sets: their names, formats, quirks and leaks, with
values drawn here. What is right for each was written down before `init` saw it.
"""

from __future__ import annotations

import io
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from tests.journeys.strangers_tables import Stranger

FIRST = (
    "Owen James Anna Laina William Patrick Timothy Oscar Margaret Emily Peter Karl Maria Hans John Mary"
    " Thomas Sarah Daniel Laura George Henry Alice Julia Martin Paul Elizabeth Charles Karen Linda Robert"
    " Susan Mark Nancy Lisa Kevin Brian Edward Barbara Richard Joseph Jessica David Jennifer Michael Alma"
    " Ruth Walter Clara Edith Harold Amos Nora Felix Hugo Iris Leon"
).split()
LAST = [
    head + tail
    for head in "Bra Cum Heik All Mor McCar Pals John Nass Bonn Ves Ander Lind Hol Kar Berg".split()
    for tail in "und ings kinen en an thy son sen er ell trom sson qvist mes lov strand".split()
]


def _lines(path: Path, lines: list[str], **how: Any) -> str:
    path.write_text("\n".join(lines) + "\n", **({"encoding": "utf-8"} | how))
    return path.name


def _table(path: Path, header: str, rows: list[list[Any]], mark: str = ",") -> str:
    return _lines(path, [header, *(mark.join(map(str, row)) for row in rows)])


def _chosen(chance: Generator, words: str) -> str:
    return str(chance.choice(words.split()))


def _yes(chance: Generator, score: float) -> bool:
    return bool(chance.random() < 1 / (1 + np.exp(-score)))


def titanic(folder: Path) -> str:
    chance = default_rng(101)
    rows = []
    for i in range(891):
        sex, rank = (
            _chosen(chance, "male female"),
            int(chance.choice([1, 2, 3], p=[0.25, 0.2, 0.55])),
        )
        age = "" if chance.random() < 0.2 else int(chance.integers(1, 75))
        survived = _yes(chance, 2.4 * (sex == "female") - 1.0 * (rank - 1) - 0.2)
        title = "Mr." if sex == "male" else "Mrs."
        name = f'"{_chosen(chance, " ".join(LAST))}, {title} {_chosen(chance, " ".join(FIRST))}"'
        cabin = f"C{chance.integers(1, 140)}" if chance.random() < 0.22 else ""
        fare = round(float(chance.lognormal(4.4 - 0.7 * rank, 0.5)), 4)
        rows.append(
            [
                i + 1,
                int(survived),
                rank,
                name,
                sex,
                age,
                chance.integers(0, 4),
                chance.integers(0, 3),
                f"PC {chance.integers(1000, 99999)}",
                fare,
                cabin,
                _chosen(chance, "S S S C Q"),
            ]
        )
    header = (
        "PassengerId,Survived,Pclass,Name,Sex,Age,SibSp,Parch,Ticket,Fare,Cabin,Embarked"
    )
    return _table(folder / "titanic.csv", header, rows)


def iris(folder: Path) -> str:
    chance = default_rng(102)
    rows = []
    for kind, centre in (
        ("Iris-setosa", (5, 3.4, 1.5, 0.2)),
        ("Iris-versicolor", (5.9, 2.8, 4.3, 1.3)),
        ("Iris-virginica", (6.6, 3, 5.5, 2)),
    ):
        for _ in range(50):
            rows.append(
                [*(f"{max(0.1, chance.normal(c, 0.3)):.1f}" for c in centre), kind]
            )
    return _lines(folder / "iris.data", [",".join(r) for r in rows])


def wine(folder: Path) -> str:
    chance = default_rng(103)
    rows = []
    for _ in range(1_599):
        alcohol, acid = chance.normal(10.4, 1), chance.normal(0.53, 0.18)
        quality = int(
            np.clip(
                round(
                    5.6
                    + 0.5 * (alcohol - 10.4)
                    - 1.5 * (acid - 0.53)
                    + chance.normal(0, 0.5)
                ),
                3,
                8,
            )
        )
        rows.append(
            [
                f"{chance.normal(8.3, 1.7):.1f}",
                f"{acid:.2f}",
                f"{chance.normal(2.5, 1):.1f}",
                f"{chance.normal(0.0967, 0.002):.4f}",
                f"{alcohol:.1f}",
                quality,
            ]
        )
    header = '"fixed acidity";"volatile acidity";"residual sugar";"density";"alcohol";"quality"'
    return _table(folder / "winequality-red.csv", header, rows, ";")


def mushrooms(folder: Path) -> str:
    chance = default_rng(104)
    rows = []
    for _ in range(2_000):
        bad = chance.random() < 0.48
        odor = _chosen(chance, "f f f y s p n") if bad else _chosen(chance, "n n n n a l")
        rows.append(
            [
                "p" if bad else "e",
                _chosen(chance, "x b f k"),
                _chosen(chance, "s y f"),
                "t" if chance.random() < (0.2 if bad else 0.6) else "f",
                odor,
                _chosen(chance, "? e c b"),
                "p",
            ]
        )
    header = "class,cap-shape,cap-surface,bruises,odor,stalk-root,veil-type"
    return _table(folder / "mushrooms.csv", header, rows)


def bank(folder: Path) -> str:
    chance = default_rng(105)
    rows = []
    for _ in range(3_000):
        duration, balance = int(chance.exponential(250)), int(chance.normal(1_300, 2_000))
        poutcome = _chosen(chance, "unknown unknown unknown failure success")
        yes = _yes(chance, -3.6 + 0.004 * duration + 2 * (poutcome == "success"))
        words = [
            _chosen(chance, "admin. technician services management"),
            _chosen(chance, "married single divorced"),
        ]
        rows.append(
            [
                chance.integers(18, 90),
                *(f'"{w}"' for w in words),
                balance,
                chance.integers(1, 31),
                f'"{_chosen(chance, "may jun jul aug nov")}"',
                duration,
                f'"{poutcome}"',
                '"yes"' if yes else '"no"',
            ]
        )
    header = '"age";"job";"marital";"balance";"day";"month";"duration";"poutcome";"y"'
    return _table(folder / "bank-full.csv", header, rows, ";")


def telco(folder: Path) -> str:
    chance = default_rng(106)
    rows = []
    for _ in range(2_000):
        months, fee = (
            int(chance.integers(0, 73)),
            round(float(chance.uniform(18, 119)), 2),
        )
        contract = str(chance.choice(["Month-to-month", "One year", "Two year"]))
        left = _yes(
            chance, 0.4 - 0.04 * months - 1.5 * (contract == "Two year") + 0.01 * fee
        )
        total = " " if months == 0 else f"{months * fee * chance.uniform(0.9, 1.1):.2f}"
        name = f"{chance.integers(1000, 9999)}-" + "".join(
            chance.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 5)
        )
        rows.append(
            [
                name,
                _chosen(chance, "Male Female"),
                chance.integers(0, 2),
                months,
                contract,
                fee,
                total,
                "Yes" if left else "No",
            ]
        )
    header = "customerID,gender,SeniorCitizen,tenure,Contract,MonthlyCharges,TotalCharges,Churn"
    return _table(folder / "telco.csv", header, rows)


def german(folder: Path) -> str:
    chance = default_rng(107)
    lines = []
    for _ in range(1_000):
        status, months = int(chance.integers(1, 5)), int(chance.integers(4, 60))
        bad = _yes(chance, 0.3 - 0.7 * (status - 1) + 0.03 * months - 0.5)
        lines.append(
            f"A1{status} {months} A3{chance.integers(0, 5)} A4{chance.integers(0, 10)} "
            f"{chance.integers(250, 18000)} A6{chance.integers(1, 6)} "
            f"{chance.integers(19, 75)} {2 if bad else 1}"
        )
    return _lines(folder / "german.data", lines)


def sms(folder: Path) -> str:
    chance = default_rng(108)
    ham = (
        "ok see you later i am home now what time lunch sorry call me love dinner".split()
    )
    spam = "free prize win cash txt claim urgent mobile 08001234567 reply stop".split()
    lines = []
    for _ in range(1_500):
        is_spam = chance.random() < 0.14
        words = [*chance.choice(ham, int(chance.integers(5, 12)))]
        if is_spam:
            words = [*chance.choice(spam, int(chance.integers(4, 9))), *words[:3]]
        lines.append(f"{'spam' if is_spam else 'ham'}\t{' '.join(words).capitalize()}.")
    return _lines(folder / "SMSSpamCollection", lines)


def imdb(folder: Path) -> str:
    chance = default_rng(109)
    own = {
        "pos": "wonderful superb touching brilliant".split(),
        "neg": "boring terrible waste awful".split(),
    }
    common = "movie the film this was story actor scene with plot and it for".split()
    for split, count in (("train", 250), ("test", 100)):
        for label, words in own.items():
            below = folder / "aclImdb" / split / label
            below.mkdir(parents=True)
            for i in range(count):
                stars = (
                    chance.integers(7, 11) if label == "pos" else chance.integers(1, 5)
                )
                text = [*chance.choice(common, 25), *chance.choice(words, 2)]
                chance.shuffle(text)
                (below / f"{i}_{stars}.txt").write_text(
                    " ".join(text) + "<br /><br />", "utf-8"
                )
    return "aclImdb"


def passengers(folder: Path) -> str:
    chance = default_rng(110)
    rows = []
    for i in range(144):
        value = (110 + 2.6 * i) * (
            1 + 0.2 * np.sin(2 * np.pi * (i - 3) / 12)
        ) + chance.normal(0, 6)
        rows.append([f"{1949 + i // 12}-{i % 12 + 1:02d}", int(value)])
    return _table(folder / "AirPassengers.csv", "Month,#Passengers", rows)


def bikes(folder: Path) -> str:
    chance = default_rng(111)
    rows = []
    for i in range(24 * 150):
        at = datetime(2011, 1, 1) + timedelta(hours=i)
        if chance.random() < 0.01:
            continue
        warm = (
            0.3
            + 0.2 * np.sin(2 * np.pi * i / (24 * 150))
            + 0.08 * np.sin(2 * np.pi * (at.hour - 9) / 24)
        )
        casual = int(chance.poisson(3 + 40 * warm * (8 < at.hour < 20)))
        registered = int(chance.poisson(10 + 120 * (at.hour in (8, 17, 18)) + 60 * warm))
        rows.append(
            [
                len(rows) + 1,
                f"{at:%Y-%m-%d}",
                (at.month % 12) // 3 + 1,
                at.hour,
                int(at.weekday() > 4),
                f"{warm:.2f}",
                f"{chance.uniform(0.2, 1):.2f}",
                casual,
                registered,
                casual + registered,
            ]
        )
    header = "instant,dteday,season,hr,weekend,temp,hum,casual,registered,cnt"
    return _table(folder / "hour.csv", header, rows)


def airbnb(folder: Path) -> str:
    chance = default_rng(112)
    rows = []
    for _ in range(1_800):
        room, beds = (
            str(chance.choice(["Entire home/apt", "Private room", "Shared room"])),
            int(chance.integers(1, 6)),
        )
        price = (
            40
            + 45 * beds
            + 80 * (room == "Entire home/apt")
            + float(chance.exponential(25))
        )
        seen = (
            f"2019-{chance.integers(1, 8):02d}-{chance.integers(1, 29):02d}"
            if chance.random() < 0.8
            else ""
        )
        money = f"${price:,.2f}" if price < 1_000 else f'"${price:,.2f}"'
        rows.append(
            [
                chance.integers(10_000, 40_000_000),
                f'"{beds} bed, near {_chosen(chance, "Park Canal Market Museum")}"',
                _chosen(chance, " ".join(FIRST)),
                _chosen(chance, "Centrum Oost West Noord"),
                room,
                beds,
                money,
                seen,
                f"{chance.exponential(1):.2f}" if seen else "",
            ]
        )
    header = "id,name,host_name,neighbourhood,room_type,beds,price,last_review,reviews_per_month"
    return _table(folder / "listings.csv", header, rows)


def diamonds(folder: Path) -> str:
    chance = default_rng(113)
    rows = []
    for _ in range(3_000):
        carat = round(float(chance.lognormal(-0.4, 0.5)), 2)
        cut = str(chance.choice(["Ideal", "Premium", "Very Good", "Good", "Fair"]))
        price = int(
            2_500
            * carat**1.7
            * (1.2 if cut == "Ideal" else 1)
            * chance.lognormal(0.5, 0.12)
        )
        rows.append(
            [
                carat,
                cut,
                _chosen(chance, "D E F G H I J"),
                _chosen(chance, "SI1 VS2 VS1 SI2"),
                f"{chance.normal(61.7, 1.4):.1f}",
                price,
            ]
        )
    # As published: sorted by price, with a number for each row.
    rows.sort(key=lambda row: row[-1])
    numbered = [[f'"{i + 1}"', *row] for i, row in enumerate(rows)]
    return _table(
        folder / "diamonds.csv",
        '"","carat","cut","color","clarity","depth","price"',
        numbered,
    )


def heart(folder: Path) -> str:
    chance = default_rng(114)
    rows = []
    for _ in range(600):
        pain, rate = int(chance.integers(1, 5)), int(chance.normal(150, 22))
        ill = _yes(chance, 0.9 * (pain - 3) - 0.04 * (rate - 150))
        vessels = "?" if chance.random() < 0.02 else f"{chance.integers(0, 4)}.0"
        rows.append(
            [
                f"{chance.integers(29, 77)}.0",
                f"{chance.integers(0, 2)}.0",
                f"{pain}.0",
                f"{rate}.0",
                vessels,
                int(chance.integers(1, 4)) if ill else 0,
            ]
        )
    return _table(folder / "cleveland.csv", "age,sex,cp,thalach,ca,num", rows)


def taxi(folder: Path) -> str:
    chance = default_rng(115)
    rows = []
    for i in range(2_500):
        start = datetime(2016, 1, 1) + timedelta(
            seconds=int(chance.integers(0, 180 * 86_400))
        )
        km = float(chance.exponential(3)) + 0.3
        seconds = (
            int(
                km * 200 * (1.4 if 7 < start.hour < 19 else 1) * chance.lognormal(0, 0.25)
            )
            + 60
        )
        end = start + timedelta(seconds=seconds)
        rows.append(
            [
                f"id{i:07d}",
                chance.integers(1, 3),
                f"{start:%Y-%m-%d %H:%M:%S}",
                f"{end:%Y-%m-%d %H:%M:%S}",
                chance.integers(1, 6),
                f"{km:.3f}",
                _chosen(chance, "N N N N Y"),
                seconds,
            ]
        )
    header = (
        "id,vendor_id,pickup_datetime,dropoff_datetime,passenger_count,distance,"
        "store_and_fwd_flag,trip_duration"
    )
    return _table(folder / "taxi.csv", header, rows)


def students(folder: Path) -> str:
    chance = default_rng(116)
    rows = []
    for _ in range(649):
        skill = chance.normal(11, 3)
        first, second, last = (
            int(np.clip(round(skill + chance.normal(0, 1.2)), 0, 20)) for _ in range(3)
        )
        rows.append(
            [
                _chosen(chance, '"GP" "MS"'),
                _chosen(chance, '"F" "M"'),
                chance.integers(15, 22),
                _chosen(chance, '"yes" "no"'),
                chance.integers(0, 30),
                f'"{first}"',
                f'"{second}"',
                last,
            ]
        )
    return _table(
        folder / "student-mat.csv", "school;sex;age;higher;absences;G1;G2;G3", rows, ";"
    )


def compas(folder: Path) -> str:
    chance = default_rng(117)
    rows = []
    for i in range(2_000):
        age, priors = int(chance.integers(18, 70)), int(chance.poisson(3))
        again = _yes(chance, 0.4 - 0.05 * (age - 20) + 0.3 * priors)
        first, last = (
            _chosen(chance, " ".join(FIRST)).lower(),
            _chosen(chance, " ".join(LAST)).lower(),
        )
        case = (
            f"{chance.integers(13, 15)}0{chance.integers(10_000, 99_999)}CF10A"
            if again
            else ""
        )
        day = (
            f"2014-{chance.integers(1, 13):02d}-{chance.integers(1, 29):02d}"
            if again
            else ""
        )
        rows.append(
            [
                i + 1,
                f"{first} {last}",
                first,
                last,
                _chosen(chance, "Male Female"),
                age,
                _chosen(chance, "African-American Caucasian Hispanic"),
                priors,
                int(
                    np.clip(
                        round(5 + priors / 2 - (age - 35) / 10 + chance.normal(0, 1.5)),
                        1,
                        10,
                    )
                ),
                case,
                day,
                int(again),
            ]
        )
    header = (
        "id,name,first,last,sex,age,race,priors_count,decile_score,"
        "r_case_number,r_offense_date,two_year_recid"
    )
    return _table(folder / "compas.csv", header, rows)


def movies(folder: Path) -> str:
    chance = default_rng(118)
    users, films = chance.normal(0, 0.5, 120), chance.normal(0, 0.6, 80)
    rows = []
    for u in range(120):
        for f in chance.choice(80, 35, replace=False):
            stars = np.clip(
                round(2 * (3.4 + users[u] + films[f] + chance.normal(0, 0.4))) / 2, 0.5, 5
            )
            rows.append(
                [u + 1, f * 13 + 1, stars, 964_980_000 + int(chance.integers(0, 10**8))]
            )
    return _table(folder / "ratings.csv", "userId,movieId,rating,timestamp", rows)


def weather(folder: Path) -> str:
    chance = default_rng(119)
    rows = []
    for place in ("Albury", "Sydney", "Perth", "Darwin"):
        for i in range(700):
            damp = float(np.clip(chance.normal(60, 18), 5, 100))
            rain = max(0.0, float(chance.normal((damp - 65) / 8, 2.5)))
            today = max(0.0, float(chance.normal(0.2, 2)))
            rows.append(
                [
                    f"{date(2008, 12, 1) + timedelta(days=i)}",
                    place,
                    f"{chance.normal(20, 6):.1f}",
                    "NA" if chance.random() < 0.1 else f"{damp:.0f}",
                    "Yes" if today > 1 else "No",
                    f"{rain:.1f}",
                    "Yes" if float(f"{rain:.1f}") > 1 else "No",
                ]
            )
    return _table(
        folder / "weatherAUS.csv",
        "Date,Location,MaxTemp,Humidity3pm,RainToday,RISK_MM,RainTomorrow",
        rows,
    )


def sales(folder: Path) -> str:
    chance = default_rng(120)
    rows = []
    for i in range(365):
        for store in (1, 2, 3):
            for item in (1, 2):
                level = 10 + 4 * store + 5 * item + 4 * np.sin(2 * np.pi * i / 7)
                rows.append(
                    [
                        f"{date(2013, 1, 1) + timedelta(days=i)}",
                        store,
                        item,
                        int(chance.poisson(level)),
                    ]
                )
    return _table(folder / "sales.csv", "date,store,item,sales", rows)


def pictures(folder: Path) -> str:
    from PIL import Image

    chance = default_rng(121)
    for split, count in (("train", 120), ("val", 20), ("test", 40)):
        for label, level in (("NORMAL", 90), ("PNEUMONIA", 150)):
            below = folder / "chest_xray" / split / label
            below.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(chance.normal(level, 40, (32, 32)), 0, 255).astype(
                    "uint8"
                )
                data = io.BytesIO()
                Image.fromarray(pixels).save(data, "JPEG")
                (below / f"IM-{i:04d}-0001.jpeg").write_bytes(data.getvalue())
    return "chest_xray"


def news(folder: Path) -> str:
    chance = default_rng(122)
    own = {
        "POLITICS": "senate vote election president",
        "SPORTS": "team match season coach",
        "TRAVEL": "beach hotel flight city",
    }
    lines = []
    for i in range(1_500):
        kind = str(chance.choice(list(own)))
        words = [
            *chance.choice(own[kind].split(), int(chance.integers(0, 3))),
            *chance.choice("the new in for this week how why".split(), 5),
        ]
        chance.shuffle(words)
        record = {
            "link": f"https://news.example/entry/{i:06x}",
            "headline": " ".join(words),
            "category": kind,
            "short_description": " ".join(
                chance.choice("what to know about it today and then".split(), 9)
            ),
            "authors": f"{_chosen(chance, ' '.join(FIRST))} {_chosen(chance, ' '.join(LAST))}",
            "date": f"{date(2018, 5, 26) - timedelta(days=i // 4)}",
        }
        lines.append(json.dumps(record))
    return _lines(folder / "News_Category_Dataset_v3.json", lines)


PUBLIC: dict[str, Stranger] = {
    "titanic": Stranger(
        titanic,
        "Survived",
        ("binary",),
        891,
        out=("PassengerId", "Name"),
        used=("Sex", "Pclass", "Fare"),
    ),
    "iris": Stranger(iris, None, ("category",), 150),
    "wine": Stranger(
        wine,
        "quality",
        ("number", "category"),
        1_599,
        used=("alcohol", "volatile acidity"),
    ),
    "mushrooms": Stranger(
        mushrooms,
        "class",
        ("binary",),
        2_000,
        out=("veil-type",),
        used=("odor", "bruises"),
    ),
    "bank": Stranger(
        bank, "y", ("binary",), 3_000, used=("duration", "poutcome", "balance")
    ),
    "telco": Stranger(
        telco,
        "Churn",
        ("binary",),
        2_000,
        out=("customerID",),
        used=("tenure", "TotalCharges", "Contract"),
    ),
    "german": Stranger(german, None, ("binary", "category"), 1_000),
    "sms": Stranger(sms, None, ("binary", "category"), 1_500),
    "imdb": Stranger(
        imdb,
        "label",
        ("binary", "category"),
        700,
        {"by": "column"},
        out=("path",),
        used=("content",),
    ),
    "passengers": Stranger(
        passengers,
        "#Passengers",
        ("series",),
        144,
        {"by": "time", "on": "Month"},
        used=("#Passengers",),
    ),
    "bikes": Stranger(
        bikes,
        "cnt",
        ("number", "series"),
        0,
        {"by": "time"},
        out=("casual", "registered", "instant"),
    ),
    "airbnb": Stranger(
        airbnb,
        "price",
        ("number",),
        1_800,
        out=("id", "host_name"),
        used=("room_type", "beds"),
    ),
    "diamonds": Stranger(
        diamonds, "price", ("number",), 3_000, {"by": "hash"}, used=("carat", "cut")
    ),
    "heart": Stranger(
        heart, "num", ("category", "number"), 600, used=("cp", "thalach", "ca")
    ),
    "taxi": Stranger(
        taxi,
        "trip_duration",
        ("number",),
        2_500,
        out=("id", "dropoff_datetime"),
        used=("distance", "pickup_datetime"),
    ),
    "students": Stranger(students, "G3", ("number", "category"), 649, used=("G1", "G2")),
    "compas": Stranger(
        compas,
        "two_year_recid",
        ("binary",),
        2_000,
        out=("name", "first", "last", "r_case_number", "r_offense_date"),
        used=("priors_count", "age"),
    ),
    "movies": Stranger(
        movies, "rating", ("number", "category"), 4_200, used=("userId", "movieId")
    ),
    "weather": Stranger(
        weather,
        "RainTomorrow",
        ("binary",),
        2_800,
        out=("RISK_MM",),
        used=("Humidity3pm", "Location"),
    ),
    "sales": Stranger(
        sales, "sales", ("series", "number"), 2_190, {"by": "time", "on": "date"}
    ),
    "pictures": Stranger(
        pictures,
        "label",
        ("binary", "category"),
        360,
        {"by": "column"},
        out=("path",),
        used=("content",),
    ),
    "news": Stranger(
        news, "category", ("category",), 1_500, out=("link",), used=("headline",)
    ),
}
