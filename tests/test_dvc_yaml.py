"""dvc.yaml says what the code does: each stage depends on exactly what it reads."""

import ast
import re

import pytest

from spp_scl.params import Params, Section
from tests.pipeline import PLUMBING, ROOT, code_needed, outputs, parameters_read, stages

ORDER = [
    "raw",
    "clean",
    "split",
    "features",
    "encoders",
    "model",
    "train",
    "released",
    "checks",
    "evaluate",
    "report",
    "audit",
]
STAGES = sorted(stages())

# What `load_dataset` reads: a dataset with its split and its features.
DATASET = {"data/clean/${dataset}.parquet", "data/split/${dataset}.parquet", "data/features/${dataset}"}


def test_every_stage_has_one_script_and_every_script_a_stage():
    assert {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in stages().items():
        assert stage["cmd"] == f"python -m stages.{name}"


def single_keys(keys):
    """Each section replaced by the keys in it."""
    found = set()
    for key in keys:
        section = Params.model_fields[key.split(".")[0]].annotation
        if "." in key or not (isinstance(section, type) and issubclass(section, Section)):
            found.add(key)
        else:
            found |= {f"{key}.{name}" for name in section.model_fields}
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_parameters_that_it_reads(name):
    assert single_keys(stages()[name]["params"]) == single_keys(parameters_read(ROOT / f"stages/{name}.py"))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_that_it_imports_and_on_no_folder_that_it_does_not(name):
    declared = [dep for dep in stages()[name]["deps"] if dep.startswith(("spp_scl", "stages"))]
    needed = code_needed(ROOT / f"stages/{name}.py")

    def covers(dep, module):
        return module == dep or module.startswith(f"{dep}/")

    assert [module for module in needed if not any(covers(dep, module) for dep in declared)] == []
    assert [dep for dep in declared if not any(covers(dep, module) for module in needed)] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_the_files_that_its_script_names(name):
    script = (ROOT / f"stages/{name}.py").read_text()
    named = re.findall(r'"((?:data|reports|models)/[^"]*)(?<!\.tmp)"', script)
    named = {path.replace("{params.dataset}", "${dataset}") for path in named}
    # A folder and the dataset joined to it, which is how the scripts write data/raw and data/published.
    named = {"data/raw/${dataset}" if path == "data/raw" else path for path in named}
    stage = stages()[name]
    deps = {dep for dep in stage["deps"] if dep.startswith(("data", "reports", "models"))}
    if "load_dataset(params.dataset)" in script:
        assert deps >= DATASET
        deps -= DATASET
    # model.json lies beside the weights, and the SVG of a picture beside the PNG.
    beside = {path for path in outputs(stage) | dict.fromkeys(deps) if path.endswith((".svg", "model.json"))}
    assert named == (outputs(stage).keys() | deps) - beside


def test_every_parameter_is_declared_by_some_stage():
    declared = {key for stage in stages().values() for key in single_keys(stage["params"])}
    assert declared == single_keys(Params.model_fields)


def test_every_key_of_a_section_handed_on_whole_is_read():
    source = "".join(
        path.read_text() for path in [ROOT / "stages/train.py", *(ROOT / "spp_scl/train").glob("*.py")]
    )
    read = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert Params.model_fields["train"].annotation.model_fields.keys() <= read


def test_dvcs_run_cache_keeps_every_stage():
    """It leaves out a stage with an output that persists, or that is neither in its cache nor a metric."""
    for stage in stages().values():
        for options in outputs(stage).values():
            assert "persist" not in options
        assert all(
            "cache" not in (out if isinstance(out, str) else str(out)) for out in stage.get("outs", [])
        )


def test_each_room_imports_only_what_comes_before_it():
    for room in ORDER:
        for path in (ROOT / "spp_scl" / room).glob("*.py"):
            for module in re.findall(r"^(?:from|import) spp_scl\.(\w+)", path.read_text(), re.MULTILINE):
                if f"spp_scl/{module}.py" not in PLUMBING:
                    assert ORDER.index(module) <= ORDER.index(room), f"{path} imports {module}"


def test_only_one_module_reads_the_parameters_file_and_only_what_runs_a_stage_calls_it():
    for word in ("params.yaml", "load_params"):
        readers = {p.name for p in (ROOT / "spp_scl").rglob("*.py") if word in p.read_text()}
        assert readers == {"params.py", "stage.py"}
