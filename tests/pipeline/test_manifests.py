"""What Kubernetes and Slurm are given: valid by the published schema, the recipe whole inside, no secret in
it.
"""

import shutil
import subprocess

import pytest
import yaml

from penstock.core.errors import UserError
from penstock.pipeline.manifests import rendered
from penstock.recipe.schema import load_recipe

RECIPE = {
    "name": "Tumours.v2",
    "source": {"type": "files", "path": "lake"},
    "inputs": {"a": "number"},
    "targets": {"y": "binary"},
    "resources": {"memory": "3GiB", "threads": 2},
    "launcher": {"type": "ray", "processes": [2, 6], "gpus": 1},
    "train": {"lr": 1e-5},
}


def documents(text):
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def recipe(tmp_path, **words):
    return load_recipe({**RECIPE, **words}, base=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"processes": 1, "gpus": 0},
        {
            "secrets": ("bucket", "tracker"),
            "claim": "lake",
            "image": "registry.example/penstock:1",
            "hours": 2,
        },
    ],
)
def test_the_manifest_holds_by_the_published_schema(tmp_path, words):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(rendered(recipe(tmp_path), "kubernetes", **words)):
        kubernetes_validate.validate(document, "1.31", strict=True)
        kubernetes_validate.validate(
            document, kubernetes_validate.latest_version(), strict=True
        )


def test_what_the_manifest_asks_for(tmp_path):
    found = documents(rendered(recipe(tmp_path), "kubernetes", secrets=["bucket"]))
    job, service, config = found["Job"], found["Service"], found["ConfigMap"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == (
        "Indexed",
        6,
        6,
    )
    name = job["metadata"]["name"]
    assert (
        service["spec"]["clusterIP"] == "None"
        and service["spec"]["selector"] == {"job-name": name}
        and pod["subdomain"] == service["metadata"]["name"]
    )
    assert env == {
        "WORLD_SIZE": "6",
        "MASTER_ADDR": f"{name}-0.{name}",
        "MASTER_PORT": "29400",
    }
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "3072Mi"},
        "limits": {"memory": "4608Mi", "nvidia.com/gpu": "1"},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert name == "penstock-tumours-v2"
    sent = load_recipe(yaml.safe_load(config["data"]["recipe.yaml"]), base=tmp_path)
    assert sent.to_dict() == {
        **recipe(tmp_path).to_dict(),
        "launcher": sent.to_dict()["launcher"],
    }
    assert sent.to_dict()["launcher"]["type"] == "env"
    assert container["command"] == ["penstock", "run", "/penstock/recipe.yaml"]


def test_paths_that_leave_the_recipes_folder_stay_in_the_claim(tmp_path):
    text = rendered(
        recipe(
            tmp_path / "project" / "recipes",
            source={"type": "files", "path": "../../data/lake"},
            store="../store",
        ),
        "kubernetes",
    )
    assert (
        documents(text)["Job"]["spec"]["template"]["spec"]["containers"][0]["command"][-1]
        == "/penstock/project/recipes/recipe.yaml"
    )
    assert "/penstock/data/lake, /penstock/project/store" in text


def test_a_remote_recipe_needs_no_claim(tmp_path):
    text = rendered(
        recipe(tmp_path, source={"type": "files", "path": "s3://lake/rows"}),
        "kubernetes",
        store="s3://lake/store",
    )
    assert not [
        volume
        for volume in documents(text)["Job"]["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (
            {"source": {"type": "files", "path": "https://me:secret@host/rows.csv"}},
            {},
            "password in a URL",
        ),
        ({}, {"processes": 0}, "at least 1"),
        ({}, {"scheduler": "nomad"}, "kubernetes, slurm"),
    ],
)
def test_what_is_refused(tmp_path, words, options, said):
    with pytest.raises(UserError, match=said):
        rendered(
            recipe(tmp_path, **words), options.pop("scheduler", "kubernetes"), **options
        )


def test_the_batch_script(tmp_path):
    text = rendered(recipe(tmp_path), "slurm", hours=3)
    for line in (
        "#SBATCH --ntasks=6",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem-per-cpu=2304M",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --time=3:00:00",
        "#SBATCH --requeue",
    ):
        assert line in text.splitlines()
    inside = text.split("<<'END OF THE RECIPE'\n")[1].split("\nEND OF THE RECIPE")[0]
    assert (
        load_recipe(yaml.safe_load(inside), base=tmp_path).to_dict()["launcher"]["type"]
        == "env"
    )
    bash = shutil.which("bash")
    if bash:
        assert (
            subprocess.run(
                [bash, "-n"], input=text, text=True, capture_output=True
            ).returncode
            == 0
        )


def test_the_verb_prints_it(tmp_path, capsys):
    from penstock.cli import main

    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, "name": "plain"}))
    assert main(["launch", str(file), "--print", "kubernetes", "--processes", "3"]) == 0
    assert documents(capsys.readouterr().out)["Job"]["spec"]["completions"] == 3
    assert main(["launch", str(file), "--print", "slurm"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"image": "x"}, "--image means"),
        ({"claim": "c", "secrets": ["s"]}, "--claim and --secret mean"),
    ],
)
def test_words_of_kubernetes_are_not_ignored_for_slurm(tmp_path, words, named):
    with pytest.raises(UserError, match=f"{named} nothing to slurm"):
        rendered(recipe(tmp_path), "slurm", **words)
