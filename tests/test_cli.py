"""The command `spp-scl`: help at once, mistakes in one line, and its two commands."""

import importlib.metadata
import subprocess
import sys
import tomllib

import pytest

from spp_scl import cli
from tests.pipeline import ROOT

SPP_SCL = [sys.executable, "-c", "import sys; from spp_scl.cli import main; sys.exit(main())"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}

STUDIES = """
import os, sys
from pathlib import Path
from spp_scl.errors import UserError

def main(arguments):
    if arguments == ["fail"]:
        raise UserError("row 3: what is wrong")
    if arguments == ["interrupt"]:
        raise KeyboardInterrupt
    print(Path.cwd().name, *arguments)
"""


def spp_scl(folder, *arguments):
    return subprocess.run(
        [*SPP_SCL, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def pipeline(tmp_path):
    """A folder that looks like the pipeline's."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/__init__.py").touch()
    (tmp_path / "studies/command.py").write_text(STUDIES)
    return tmp_path


def test_the_package_installs_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    value = project["scripts"]["spp-scl"]
    assert importlib.metadata.EntryPoint("spp-scl", value, "console_scripts").load() is cli.main


def test_help_names_the_commands_and_imports_nothing_that_takes_seconds(tmp_path):
    for arguments, heavy in (
        (["--help"], {"numpy", "pandas", "torch"}),
        (["released", "--help"], {"torch", "transformers"}),
    ):
        code = f"""
import sys
from spp_scl.cli import main
try:
    main({arguments})
finally:
    print({heavy} & set(sys.modules))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0
        assert done.stdout.endswith("set()\n")
        assert "released" in done.stdout
    help_text = spp_scl(tmp_path, "--help").stdout
    assert "released" in help_text
    assert "studies" in help_text


def test_a_reader_that_has_had_enough_ends_the_command_quietly():
    with subprocess.Popen(
        [*SPP_SCL, "methods"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("command", cli._COMMANDS)
def test_the_help_of_each_command_has_an_example(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert f"example: spp-scl {command}" in capsys.readouterr().out.replace("examples:", "example:")


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["released", "x.pth", "--dataset", "unknown"]])
def test_a_wrong_command_line_is_refused_with_the_usage(tmp_path, arguments):
    done = spp_scl(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: spp-scl")


def test_studies_are_those_of_the_current_folder_and_get_their_own_arguments(pipeline):
    done = spp_scl(pipeline, "studies", "run", "alpha", "--data", "x", "-S", "seed=1", "--help")
    assert done.stdout == f"{pipeline.name} run alpha --data x -S seed=1 --help\n", done.stderr


@pytest.mark.parametrize("option", ["--only", "--without"])
def test_rows_of_a_study_are_chosen_by_parameters_that_they_set(option):
    done = spp_scl(ROOT, "studies", "run", "alpha", "--data", "x", option, "alfa")
    assert (done.returncode, done.stderr) == (1, "error: no row sets alfa; the rows set alpha\n")


def test_studies_outside_the_pipeline_say_where_to_go(tmp_path):
    done = spp_scl(tmp_path, "studies", "run", "alpha")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: no dvc.yaml and no studies/command.py")


def test_a_user_error_is_one_line_and_exit_status_1(pipeline):
    done = spp_scl(pipeline, "studies", "fail")
    assert (done.returncode, done.stderr) == (1, "error: row 3: what is wrong\n")
    done = spp_scl(pipeline, "released", "missing.pth", "--dataset", "hfm")
    assert (done.returncode, done.stderr) == (1, "error: missing.pth: no such file\n")


def test_an_interrupt_is_one_line_and_exit_status_130(pipeline):
    done = spp_scl(pipeline, "studies", "interrupt")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_types_are_shipped_with_the_package():
    assert (ROOT / "spp_scl/py.typed").is_file()
