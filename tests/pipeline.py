"""What the tests know of the pipeline from dvc.yaml and from the code's own text; and how they run it."""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent

# Reading parameters, reporting errors, renaming files and drawing bars decide no output, so a change in
# them need not run any stage again.
# Neither does finding the methods' files.
PLUMBING = {
    f"spp_scl/{name}.py"
    for name in (
        "params",
        "options",
        "errors",
        "files",
        "progress",
        "stage",
        "previous",
        "cli",
        "listing",
        "attention",
        "methods/__init__",
    )
}

# The file of the method that is chosen, as dvc.yaml names it; these import it, by its name.
METHOD = "spp_scl/methods/${method}.py"
IMPORTERS = {"spp_scl.methods.load_method", "spp_scl.methods.check_settings"}


def stages() -> dict[str, dict]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def parameters_read(script: Path) -> set[str]:
    """The longest chains `params.a.b` in a script, and in the functions that it hands `params` to."""
    tree = ast.parse(script.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    chains = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load):
            parts = []
            while isinstance(parents[node], ast.Attribute):
                node = parents[node]
                parts.append(node.attr)
            caller = parents[node]
            called = ast.unparse(caller.func) if isinstance(caller, ast.Call) else ""
            # What is only checked, before the work, decides no output.
            if called.startswith("require_"):
                continue
            if parts:
                chains.add(".".join(part for part in parts if part != "model_dump"))
            else:
                chains |= parameters_read(_module_of(called, tree, script))
    return chains


def _module_of(function: str, tree: ast.AST, script: Path) -> Path:
    """Where a function comes from that a script hands `params` to as a whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and function in {alias.name for alias in node.names}:
            return ROOT / (node.module.replace(".", "/") + ".py")
    raise AssertionError(f"{script}: `params` is handed on as a whole, so what it is read for is hidden")


def code_needed(script: Path) -> set[str]:
    """The modules of the package that a script imports, directly or not, and the script itself.

    Where the chosen method's file is imported by its name, that is one of them, and so is what any method
    imports.
    """
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        # The package itself imports the predictor, once somebody asks for it; no stage does.
        if name in found or name in PLUMBING or name == "spp_scl/__init__.py":
            continue
        of_method = path.parent == ROOT / "spp_scl/methods"
        found.add(METHOD if of_method else name)
        for node in _walk(ast.parse(path.read_text())):
            for module in _imported(node):
                if module in IMPORTERS and METHOD not in found:
                    found.add(METHOD)
                    waiting += (ROOT / "spp_scl/methods").glob("[!_]*.py")
                if module.startswith("spp_scl"):
                    waiting += filter(_has_code, _files(module))
    return found


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of a check (`require_...`), which decides no output."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.FunctionDef) and child.name.startswith("require_")):
            yield from _walk(child)


def _files(module: str) -> list[Path]:
    place = ROOT / module.replace(".", "/")
    return [place.with_suffix(".py"), place / "__init__.py"]


def _has_code(path: Path) -> bool:
    """More than a docstring."""
    if not path.is_file():
        return False
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


# The stages' own interpreter first, as in an activated environment.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    **{
        f"GIT_{who}_{what}": "test@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


def run(folder, *command, code=0):
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    return output


def stage(folder, name, code=0):
    return run(folder, "python", "-m", f"stages.{name}", code=code)


def ran(output):
    return re.findall(r"Running stage '(\w+)'", output)


def outputs(entry):
    """The paths that a stage of dvc.yaml writes, with their options."""
    listed = [*entry.get("outs", []), *entry.get("metrics", [])]
    return {
        path: options
        for out in listed
        for path, options in ([(out, {})] if isinstance(out, str) else out.items())
    }


def set_params(folder, **sections):
    yaml = YAML()
    path = folder / "params.yaml"
    values = yaml.load(path)
    for key, value in sections.items():
        if isinstance(value, dict):
            values[key].update(value)
        else:
            values[key] = value
    yaml.dump(values, path)


def snapshot(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for part in ("data", "models", "reports")
        for p in sorted((folder / part).rglob("*"))
        if p.is_file() and not re.search(r"/\..*\.tmp\b", str(p))
    }


def temporary_files(folder):
    """What the stages write aside; DVC's own leftovers, under random names of 22 letters, are not theirs."""
    return [
        p
        for p in folder.rglob(".*.tmp")
        if ".dvc" not in p.parts and not re.fullmatch(r"\.[\w-]{22}\.tmp", p.name)
    ]


def damaged_objects(folder, cache=".dvc/cache"):
    """What lies in DVC's cache under a name that is not its MD5."""
    return [
        path
        for path in (folder / cache / "files/md5").glob("??/[!.]*")
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name.removesuffix(".dir")
    ]


METRICS = ("reports/metrics.json", "reports/audit.json", "reports/floors.json")


def small_clone(folder, epochs):
    """The working tree as a fresh repository, on a small sample, nothing reproduced yet."""
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # A checkout in which the pipeline has run has results of its own.
    for name in ("dvc.lock", *METRICS):
        (folder / name).unlink(missing_ok=True)
    set_params(folder, sample={"pairs": 60}, spp_scl={"epochs": epochs, "batch_size": 16})
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "small")
    return folder


def copy_clone(clone, folder):
    """A copy of a reproduced repository, without DVC's cache, in which every file may be changed."""
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("cache", "tmp"))
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)  # DVC protects what it has cached
    return folder
