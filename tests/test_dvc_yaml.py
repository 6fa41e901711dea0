"""dvc.yaml says what the code does: each stage depends on exactly what it reads."""

import ast
import re

import pytest

from spp_scl.params import Params, Section
from tests.pipeline import PLUMBING, ROOT, code_needed, parameters_read, stages

ORDER = ["raw", "clean", "split", "features", "model", "train", "released", "evaluate", "report", "audit"]
STAGES = sorted(stages())


def test_every_stage_has_one_script_and_every_script_a_stage():
    assert {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in stages().items():
        assert stage["cmd"] == f"python -m stages.{name}"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_parameters_that_it_reads(name):
    declared = set(stages()[name]["params"])
    read = parameters_read(ROOT / f"stages/{name}.py")
    # A section handed on whole covers its single keys.
    read = {key for key in read if key.split(".")[0] not in read or "." not in key}
    assert declared == read


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(name):
    declared = set()
    for dep in stages()[name]["deps"]:
        path = ROOT / dep
        if path.suffix == ".py":
            declared.add(dep)
        elif dep.startswith("spp_scl"):
            modules = {p.relative_to(ROOT).as_posix() for p in path.glob("*.py") if p.stem != "__init__"}
            assert modules, f"{dep} holds no code"
            declared |= modules
    assert declared == code_needed(ROOT / f"stages/{name}.py")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_the_files_that_its_script_names(name):
    script = (ROOT / f"stages/{name}.py").read_text()
    named = re.findall(r'"((?:data|reports|models)/[^"]*)"', script)
    named = {path.replace("{params.dataset}", "${dataset}") for path in named}
    # A folder and the dataset joined to it, which is how the scripts write data/raw and data/published.
    named = {"data/raw/${dataset}" if path == "data/raw" else path for path in named}
    stage = stages()[name]
    outs = {key for out in [*stage.get("outs", []), *stage.get("metrics", [])] for key in out}
    declared = outs | {dep for dep in stage["deps"] if dep.startswith(("data", "reports", "models"))}
    # model.json lies beside the weights, and goes with them.
    assert named == declared - {"models/model.json"}


def test_every_parameter_is_declared_by_some_stage():
    declared = {key for stage in stages().values() for key in stage["params"]}
    for name, field in Params.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys = {f"{name}.{key}" for key in field.annotation.model_fields}
            assert name in declared or keys <= declared
        else:
            assert name in declared


def test_every_key_of_a_section_handed_on_whole_is_read():
    source = "".join(
        path.read_text() for path in [ROOT / "stages/train.py", *(ROOT / "spp_scl/train").glob("*.py")]
    )
    read = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert Params.model_fields["train"].annotation.model_fields.keys() <= read


def test_failing_stages_leave_their_outputs():
    for stage in stages().values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            assert all(options["persist"] for options in out.values())


def test_each_room_imports_only_what_comes_before_it():
    for room in ORDER:
        for path in (ROOT / "spp_scl" / room).glob("*.py"):
            for module in re.findall(r"^(?:from|import) spp_scl\.(\w+)", path.read_text(), re.MULTILINE):
                if f"spp_scl/{module}.py" not in PLUMBING:
                    assert ORDER.index(module) <= ORDER.index(room), f"{path} imports {module}"


def test_only_one_module_reads_the_parameters_file():
    for word in ("params.yaml", "load_params"):
        readers = [p for p in (ROOT / "spp_scl").rglob("*.py") if word in p.read_text()]
        assert [path.name for path in readers] == ["params.py"]
