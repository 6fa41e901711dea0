"""dvc.yaml says what the code does: each stage depends on exactly what it reads."""

import ast
import re

import pytest
from ruamel.yaml import YAML

from spp_scl.methods import list_methods, load_method
from spp_scl.params import Params, Section
from tests.pipeline import METHOD, PLUMBING, ROOT, code_needed, outputs, parameters_read, stages

ORDER = [
    "raw",
    "clean",
    "split",
    "features",
    "encoders",
    "recipe",
    "batches",
    "metrics",
    "methods",
    "training",
    "released",
    "checks",
    "evaluation",
    "report",
    "audit",
    "prediction",
    "page",
]
STAGES = sorted(stages())
VIEWS = "data/views/${dataset}"

# What `load_dataset` reads: a dataset with its split and its features.
DATASET = {"data/clean/${dataset}.parquet", "data/split/${dataset}.parquet", "data/features/${dataset}"}


def test_every_stage_has_one_script_and_every_script_a_stage():
    assert {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in stages().items():
        assert stage["cmd"] == f"python -m stages.{name}"


def single_keys(keys):
    """Each section replaced by the keys in it; the methods' sections are one key, the chosen one's."""
    found = set()
    for key in keys:
        if key in ("methods", "${method}"):
            found.add("${method}")
            continue
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
    if "load_dataset(params.dataset" in script:
        loaded = DATASET | ({VIEWS} if ", views=" in script else set())
        assert deps >= loaded
        deps -= loaded
    # model.json lies beside the weights, and the SVG of a picture beside the PNG.
    beside = {path for path in outputs(stage) | dict.fromkeys(deps) if path.endswith((".svg", "model.json"))}
    assert named - beside == (outputs(stage).keys() | deps) - beside


def test_every_parameter_is_declared_by_some_stage():
    declared = {key for stage in stages().values() for key in single_keys(stage["params"])}
    assert declared == single_keys(Params.model_fields)


def attributes(*paths):
    """What is read of anything in some files."""
    source = "".join(path.read_text() for path in paths)
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def test_every_key_of_a_section_handed_on_whole_is_read():
    training = [ROOT / "stages/train.py", *(ROOT / "spp_scl/training").glob("*.py")]
    for name in ("train", "finetuned"):
        assert Params.model_fields[name].annotation.model_fields.keys() <= attributes(*training)
    for name in list_methods():
        read = attributes(ROOT / f"spp_scl/methods/{name}.py", *training)
        assert load_method(name).params.model_fields.keys() <= read, name


def test_the_method_s_file_is_a_dependency_of_what_imports_it_and_of_no_other_stage():
    assert {name for name, stage in stages().items() if METHOD in stage["deps"]} == {"train", "evaluate"}
    for name in list_methods():
        assert (ROOT / METHOD.replace("${method}", name)).is_file()


def test_the_page_of_plots_can_draw_each_of_them():
    """DVC writes a plot's name into a script, between apostrophes, and as an element's id."""
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    for name in (plot if isinstance(plot, str) else next(iter(plot)) for plot in plots):
        assert re.fullmatch(r"[\w./ ]+", name), name


def test_dvcs_run_cache_keeps_every_stage():
    """It leaves out a stage with an output that persists, or that is neither in its cache nor a metric."""
    for stage in stages().values():
        for options in outputs(stage).values():
            assert "persist" not in options
        assert all(
            "cache" not in (out if isinstance(out, str) else str(out)) for out in stage.get("outs", [])
        )


def test_each_room_imports_only_what_comes_before_it():
    seen = set()
    for room in ORDER:
        place = ROOT / "spp_scl" / room
        for path in [*place.rglob("*.py"), *place.parent.glob(f"{room}.py")]:
            seen.add(path)
            for module in re.findall(r"^(?:from|import) spp_scl\.(\w+)", path.read_text(), re.MULTILINE):
                if f"spp_scl/{module}.py" not in PLUMBING:
                    assert ORDER.index(module) <= ORDER.index(room), f"{path} imports {module}"
    rest = {path.relative_to(ROOT).as_posix() for path in set((ROOT / "spp_scl").rglob("*.py")) - seen}
    assert rest <= PLUMBING | {"spp_scl/__init__.py"}


def test_a_method_imports_no_other_method():
    for path in (ROOT / "spp_scl/methods").rglob("*.py"):
        for name in list_methods():
            assert not re.search(rf"(?:from|import) spp_scl\.methods\.{name}\b", path.read_text()), path


def test_only_one_module_reads_the_parameters_file_and_only_what_runs_a_stage_calls_it():
    named = re.compile(r"load_params|Path\([^)]*params\.yaml|= \"params\.yaml\"|open\(.*params\.yaml")
    readers = {p.name for p in (ROOT / "spp_scl").rglob("*.py") if named.search(p.read_text())}
    # Commands that are no stage: one shows the parameters, one reads the trained model.
    assert readers == {"params.py", "stage.py", "listing.py", "attention.py"}
    # Of what is YAML, there are dvc.yaml and dvc.lock beside it, and a model card's head.
    readers = {p.name for p in (ROOT / "spp_scl").rglob("*.py") if "ruamel" in p.read_text()}
    assert readers == {"params.py", "stage.py", "previous.py", "card.py"}
