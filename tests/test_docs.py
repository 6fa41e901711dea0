"""The documentation: every parameter is in it, and what it names exists."""

import re

import pytest

from spp_scl.methods import list_methods, load_method
from spp_scl.methods.shared.method import Recipe
from spp_scl.params import Params, Section
from tests.pipeline import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [path.name for path in PAGES]


def parameters():
    keys = set()
    for name, field in Params.model_fields.items():
        section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys |= {f"{name}.{key}" for key in field.annotation.model_fields} if section else {name}
    return (keys - {"methods"}) | {
        f"{name}.{key}" for name in list_methods() for key in load_method(name).params.model_fields
    }


def anchors(path):
    """A page's headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_page_of_parameters_names_each_of_them_and_no_other():
    page = (ROOT / "docs/parameters.md").read_text()
    tables = " ".join(row.split("|")[1] for row in page.split("\n") if row.startswith("|"))
    named = set(re.findall(r"`([a-z0-9_]+\.[a-z0-9_.]+)`", tables))
    named |= set(re.findall(r"`(finetuned\.[a-z_]+)[`:]", page))
    assert named <= parameters()
    # What is in every method's recipe has a table of its own, without the methods' names.
    missing = {key for key in parameters() - named if key.split(".")[-1] not in Recipe.model_fields}
    assert {key for key in missing if "." in key} == set()
    assert {key for key in missing if f"`{key}`" not in tables} == set()
    assert all(f"`{key}`" in tables for key in Recipe.model_fields)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_overrides_and_targets_are_known(page):
    text = page.read_text()
    keys = set(re.findall(r"-S '?([a-z0-9_.]+)=", text))
    assert keys <= parameters()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    for path in [*PAGES[1:], *(ROOT / name for name in ("LICENSE", "CITATION.cff", "CHANGELOG.md"))]:
        linked = f"]({path.relative_to(ROOT).as_posix()})" in readme
        # The figures belong to the page of performance.
        assert linked or path.name == "benchmarks.md"
