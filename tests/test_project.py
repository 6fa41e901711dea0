"""What stands around the code: the lock, the commands of CI, the page of `dvc plots show`."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from dvc.config import Config
from dvc_render import VegaRenderer, render_html
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from tests.pipeline import ROOT


def lock():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_the_lock_has_one_exact_version_of_every_dependency_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {}
    for pin in lock():
        assert canonicalize_name(pin.name) not in locked
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        locked[canonicalize_name(pin.name)] = specifier.version
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        needed = Requirement(text)
        assert locked[canonicalize_name(needed.name)] in needed.specifier, text


def test_every_library_that_the_code_imports_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared, page = (
        {canonicalize_name(Requirement(text).name) for text in texts}
        for texts in (project["dependencies"], project["optional-dependencies"]["page"])
    )
    providers = packages_distributions()
    for folder in ("spp_scl", "stages", "studies"):
        for path in (ROOT / folder).rglob("*.py"):
            for module in imported(path) - sys.stdlib_module_names - {"spp_scl", "stages", "studies"}:
                names = {canonicalize_name(name) for name in providers.get(module, [module])}
                known = declared | page if path.parent.name == "page" else declared
                assert names & known, f"{path.relative_to(ROOT)} imports {module}"


def imported(path):
    """The top-level modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_lock_installs_anywhere():
    text = (ROOT / "requirements.txt").read_text()
    assert "uv pip compile" in text.splitlines()[1]
    assert not re.search(r"--(?:extra-)?index-url|--find-links|://|\+cpu|\+cu|/tmp|/opt|/home", text)
    assert not [pin.name for pin in lock() if re.match("nvidia|cuda|triton", pin.name)]


def test_ci_calls_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/test.yml")
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    calls = [*steps, *re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)]
    assert {"make lint", "make test"} <= set(steps)
    assert {call.removeprefix("make ") for call in calls} <= targets
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert workflow["permissions"] == {"contents": "read"}


def test_the_page_of_plots_needs_no_network(tmp_path):
    template = ROOT / ".dvc" / Config(str(ROOT / ".dvc"))["plots"]["html_template"]
    plot = VegaRenderer([{"epoch": 0, "loss": 1.5}], "epochs.csv", x="epoch", y="loss")
    page = render_html([plot], tmp_path / "index.html", html_template=template).read_text(encoding="utf-8")
    assert "vegaEmbed('#" in page
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page):
        assert "//" not in tag
    # The libraries are of the versions that DVC's own page loads.
    libraries = re.findall(r"npm/(vega[^\"@]*)@([\d.]+)", VegaRenderer.SCRIPTS)
    assert len(libraries) == 3
    assert all(f"{name} {version}" in page for name, version in libraries)
