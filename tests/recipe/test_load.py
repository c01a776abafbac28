"""Recipes: every mistake at once, overrides, and an identity that only what matters enters."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import RecipeError
from penstock.recipe import read
from penstock.recipe.schema import Recipe, load_recipe

SMALL = {
    "source": {"type": "files", "path": "lake"},
    "inputs": {"age": "number"},
    "targets": {"income": "binary"},
}


def text_of(error) -> str:
    return str(error.value)


def test_a_small_recipe_and_its_round_trip():
    recipe = load_recipe(SMALL, name="adult")
    assert recipe.name == "adult"
    again = load_recipe(recipe.to_dict())
    assert again == recipe
    assert again.fingerprint() == recipe.fingerprint()
    assert json.loads(json.dumps(recipe.to_dict())) == recipe.to_dict()
    assert hash(recipe.inputs["age"]) == hash(again.inputs["age"])


@pytest.mark.parametrize("ending", ["yaml", "toml", "json"])
def test_the_same_recipe_in_three_languages(tmp_path, ending):
    path = tmp_path / f"people.{ending}"
    path.write_text(
        {
            "yaml": "source: {type: files, path: lake}\ninputs: {age: number}\ntargets: {income: binary}\n",
            "toml": (
                '[source]\ntype = "files"\npath = "lake"\n[inputs]\nage = "number"\n[targets]\nincome ='
                ' "binary"\n'
            ),
            "json": json.dumps(SMALL),
        }[ending]
    )
    recipe = load_recipe(path)
    assert recipe.name == "people"
    assert recipe.base == tmp_path.resolve()
    assert recipe.to_dict() == load_recipe(SMALL, name="people").to_dict()


def test_numbers_and_words_are_what_people_mean(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "source: {type: files, path: lake}\ntrain: {lr: 3e-4}\nresources: {memory: 2GiB}\nsplit: {by: time,"
        " on: yes}\n"
    )
    recipe = load_recipe(path)
    assert recipe.train.lr == 3e-4
    assert recipe.resources.memory == 2 * 2**30
    assert recipe.split.on == ("yes",)


def test_every_mistake_at_once():
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                "source": {"type": "files", "path": "lake"},
                "trian": {},
                "inputs": {"age": "numbr", "income": "category"},
                "targets": {"income": "binary"},
                "train": {
                    "lr": 0,
                    "optimiser": {"type": "adam"},
                    "early_stop": {"patients": 3},
                },
                "split": {"train": 0.9},
                "resources": {"memory": "lots"},
            }
        )
    text = text_of(caught)
    for piece in [
        "trian: is not a known option. Did you mean 'train'?",
        "inputs.age.type: no feature is called 'numbr'. Did you mean 'number'?",
        "train.lr: must be greater than 0",
        "train.optimiser.type: no optimiser is called 'adam'. Did you mean 'adamw'?",
        "train.early_stop.patients",
        "split: train + validation + test must be 1",
        "resources.memory: expected an amount of memory such as 4GiB",
    ]:
        assert piece in text, text
    assert len(caught.value.problems) == 7, text


def test_what_does_not_hold_together_is_told():
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                **SMALL,
                "inputs": {
                    "income": "category",
                    "pay": {"type": "binary", "column": "income"},
                },
                "model": {"encoders": {"pai": "linear"}, "decoders": {"incom": "binary"}},
            }
        )
    text = text_of(caught)
    assert "targets.income: is also an input" in text
    assert "inputs.pay: reads the column 'income', which is the target" in text
    assert "model.encoders.pai: is not an input. Did you mean 'pay'?" in text
    assert "model.decoders.incom: is not a target. Did you mean 'income'?" in text
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                **SMALL,
                "inputs": {"age": "number"},
                "train": {"freeze": ["aeg"], "early_stop": {"metric": "incom.roc_auc"}},
            }
        )
    text = text_of(caught)
    assert "train.freeze: 'aeg' is not an input. Did you mean 'age'? Known: age." in text
    assert (
        "train.early_stop.metric: 'incom.roc_auc' cannot be watched. Did you mean 'income'?"
        in text
    )


def test_a_users_own_module_is_told_by_its_type():
    recipe = load_recipe(
        {**SMALL, "model": {"type": "acme.net:Net", "arguments": {"width": 3}}}
    )
    assert recipe.model.type == "acme.net:Net"
    assert load_recipe(recipe.to_dict()) == recipe
    with pytest.raises(
        RecipeError,
        match=r"model\.argument: is not a known option\. Did you mean 'arguments'",
    ):
        load_recipe({**SMALL, "model": {"type": "acme.net:Net", "argument": {}}})
    with pytest.raises(RecipeError, match=r"model\.combiner\.widht"):
        load_recipe({**SMALL, "model": {"combiner": {"type": "mlp", "widht": 3}}})


def test_overrides():
    recipe = load_recipe(
        {**SMALL, "clean": ["deduplicate"]},
        [
            "train.lr=3e-4",
            "train.early_stop=null",
            "inputs.age=category",
            "model.combiner.type=residual",
            "source.path=other",
        ],
    )
    assert recipe.train.lr == 3e-4
    assert recipe.train.early_stop is None
    assert recipe.inputs["age"].type == "category"
    assert recipe.model.combiner.type == "residual"
    assert (
        load_recipe({**SMALL, "inputs": {"age": "number"}}, ["inputs.age.missing=median"])
        .inputs["age"]
        .missing
        == "median"
    )


def test_a_lone_character_is_itself_and_a_quoted_step_may_have_dots():
    source = (
        {**SMALL["source"], "delimiter": ";"}
        if isinstance(SMALL["source"], dict)
        else {"type": "files", "path": SMALL["source"]}
    )
    for character in ",;|#":
        assert (
            load_recipe(
                {**SMALL, "source": source}, [f"source.delimiter={character}"]
            ).source.to_dict()["delimiter"]
            == character
        )
    assert (
        load_recipe(
            {**SMALL, "inputs": {"a.x": "number"}, "targets": {}},
            ['inputs."a.x".missing=median'],
        )
        .inputs["a.x"]
        .to_dict()["missing"]
        == "median"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr", "written a.b=value"),
        ("=3", "written a.b=value"),
        ('a."b=3', "written a.b=value"),
        ("a..b=3", "written a.b=value"),
        ("train.lr=[", "not YAML"),
        ("train.lrr=3", "Did you mean 'lr'"),
        ("clean.4=x", "numbered from 0"),
    ],
)
def test_overrides_that_do_not_hold(override, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe({**SMALL, "clean": ["deduplicate"]}, [override])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "not YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("name: x\nname: y\n", "given twice"),
        ("name: x\n", "source: is required"),
        ("a: b: c\n", "line 1"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, words):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)


def test_yaml_merges_mappings(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        """
source: {type: files, path: x}
inputs:
  a: &first {type: number, column: k}
  b: {<<: *first, column: z}
  c: {<<: [{column: w}, *first]}
""",
        "utf-8",
    )
    inputs = load_recipe(path).inputs
    assert [list(inputs[name].columns(name)) for name in "abc"] == [["k"], ["z"], ["w"]]
    for words, said in (
        ("{<<: 3}", "takes the words of another mapping"),
        ("{<<: [x]}", "takes the words of another"),
        ("{<<: {a: 1}, <<: {b: 2}}", "'<<' is given twice"),
    ):
        path.write_text(f"source: {words}\n", "utf-8")
        with pytest.raises(RecipeError, match=f"line 1, column .*{said}"):
            load_recipe(path)


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "real.yaml").write_text("")
    with pytest.raises(
        RecipeError, match=r"there is no recipe .*Recipes there: real\.yaml"
    ):
        load_recipe(tmp_path / "reel.yaml")
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.txt").write_text("a: 1")
    with pytest.raises(RecipeError, match=r"must end in \.yaml"):
        load_recipe(tmp_path / "r.txt")


@pytest.mark.parametrize(
    ("override", "moves"),
    [
        ("where='age > 3'", True),
        ("seed=9", True),
        ("split.train=0.7", None),
        ("sample=3", True),
        ("clean=[deduplicate]", True),
        ("train.lr=0.1", False),
        ("inputs.age=category", False),
        ("resources.memory=1GiB", False),
        ("store=s3://x/y", False),
        ("launcher.processes=2", False),
    ],
)
def test_only_what_matters_enters_a_datasets_identity(override, moves):
    recipe = load_recipe({**SMALL, "split": {"train": 0.8}})
    if moves is None:
        changed = load_recipe({**SMALL, "split": {"train": 0.7, "validation": 0.2}})
        moves = True
    else:
        changed = load_recipe({**SMALL, "split": {"train": 0.8}}, [override])
    assert (changed.data_identity() != recipe.data_identity()) == moves


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_no_shape_of_data_brings_more_than_a_recipe_error(data):
    try:
        load_recipe(
            data
            if isinstance(data, dict)
            else {
                "source": data,
                "inputs": data,
                "train": data,
                "clean": data,
                "model": data,
            }
        )
    except RecipeError as error:
        assert error.problems or "mapping" in str(error)  # noqa: PT017 - either outcome is right; a crash is not


def test_the_schema_for_editors():
    from penstock.api import schema

    found = schema()
    assert {"source", "inputs", "targets", "train"} <= set(found["properties"])
    json.dumps(found)


def test_the_python_face():
    import penstock

    assert penstock.Recipe.load(SMALL, "seed=3").seed == 3
    assert Recipe is penstock.Recipe


def test_a_ceiling_that_cannot_be_kept_is_refused():
    with pytest.raises(RecipeError, match=r"resources.memory: must be at least"):
        load_recipe({**SMALL, "resources": {"memory": "10MB"}})


def test_a_word_of_another_optimiser_is_not_ignored():
    with pytest.raises(
        RecipeError, match=r"train\.optimiser\.betas: has no effect with sgd"
    ):
        load_recipe(
            {**SMALL, "train": {"optimiser": {"type": "sgd", "betas": [0.5, 0.9]}}}
        )
    recipe = load_recipe(
        {**SMALL, "train": {"optimiser": {"type": "sgd", "momentum": 0.5}}}
    )
    assert load_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            {"resources": {"memory": "10MiB"}},
            r"resources\.memory: must be at least 400 MiB, .*found 10 MiB",
        ),
        ({"resources": {"memory": True}}, "memory: expected an amount of memory"),
        ({"train": {"batch_size": 0}}, r"train\.batch_size: must be at least 1; found 0"),
        ({"train": {"lr": float("inf")}}, r"train\.lr: must be a finite number"),
        (
            {"train": {"checkpoint": {"every_seconds": "atuo"}}},
            r"every_seconds: expected a number or auto; found 'atuo'\. Did you mean 'auto'\?",
        ),
        (
            {"launcher": {"processes": 0}},
            r"launcher\.processes: must be at least 1; found 0",
        ),
        ({"launcher": {"processes": [2, 1]}}, r"write \[1, 2\]"),
        (
            {"launcher": {"processes": []}},
            "processes: expected a whole number or a longer list or auto",
        ),
        (
            {"launcher": {"processes": [1, 2, 3]}},
            "processes: expected a whole number or a list of 2 at most or auto",
        ),
        ({"launcher": {"threads": 10_000}}, r"must be at most 1024"),
        (
            {"train": {"order": {"bucket": 1}}},
            r"train\.order\.bucket: must be at least 2",
        ),
        (
            {"engine": {"type": "spark", "options": {"foo": 1}}},
            r"- engine\.options\.foo: is not a Spark setting",
        ),
        (
            {"engine": {"type": "spark", "master": "local[0]"}},
            r"engine\.master: expected local, local\[4\]",
        ),
        (
            {"launcher": {"type": "spark", "master": "foo"}},
            r"launcher\.master: expected local",
        ),
        (
            {"launcher": {"type": "spark", "options": {"spark.task.cpus": "two"}}},
            r"launcher\.options\.spark\.task\.cpus: expected a whole number from 1; found 'two'",
        ),
    ],
)
def test_one_slip_is_one_mistake_in_words(words, text):
    with pytest.raises(RecipeError, match=text) as caught:
        load_recipe({**SMALL, **words})
    assert "has 1 mistake:" in str(caught.value)


def test_settings_of_spark_may_be_numbers():
    launcher = load_recipe(
        {
            **SMALL,
            "launcher": {
                "type": "spark",
                "master": "local[*]",
                "options": {"spark.task.cpus": 2},
            },
        }
    ).launcher
    assert launcher.limits() == (1, 2)


def test_a_recipe_that_is_read_again_is_parsed_once_and_is_nobody_else_s(
    tmp_path, monkeypatch
):
    parsed = []
    parse = read.parse_yaml
    monkeypatch.setattr(
        read,
        "parse_yaml",
        lambda text, **words: parsed.append(text) or parse(text, **words),
    )
    path = tmp_path / "once.yaml"
    path.write_text("source: {type: files, path: a}\ninputs: {a: number}\n")
    first = read.read_recipe(path)
    first["inputs"]["b"] = "number"
    assert read.read_recipe(path) == {
        "source": {"type": "files", "path": "a"},
        "inputs": {"a": "number"},
    }
    assert len(parsed) == 1
    before = path.stat()
    path.write_text("source: {type: files, path: b}\ninputs: {a: number}\n")
    os.utime(
        path, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # its content tells, not its time
    assert read.read_recipe(path)["source"]["path"] == "b"


def test_a_recipe_that_is_refused_is_refused_again(tmp_path):
    path = tmp_path / "bomb.yaml"
    lines = [
        "c0: &c0 [1, 1]",
        *(f"c{i}: &c{i} [{', '.join([f'*c{i - 1}'] * 40)}]" for i in range(1, 6)),
    ]
    path.write_text("\n".join(lines) + "\n")
    for _ in range(2):
        with pytest.raises(RecipeError, match="with its aliases written out"):
            read.read_recipe(path)
