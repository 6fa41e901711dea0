"""The methods, one file each: the file's name is what the parameter `method` takes."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from spp_scl.methods.shared.method import Method, Recipe
    from spp_scl.params import Params


class MethodFile(NamedTuple):
    """What a method's file defines."""

    name: str
    params: "type[Recipe]"
    network: "type[Method]"


def list_methods() -> list[str]:
    """The names of all methods; nothing is imported for it."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load_method(name: str) -> MethodFile:
    """Import a method's file.

    Raises:
        TypeError: it does not define `Params` and one `Method` that has `spaces`.
    """
    from spp_scl.methods.shared.method import Method, Recipe

    module = importlib.import_module(f"spp_scl.methods.{name}")
    networks = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Method) and found.__module__ == module.__name__
    ]
    params = getattr(module, "Params", None)
    if len(networks) != 1 or not (isinstance(params, type) and issubclass(params, Recipe)):
        raise TypeError(f"{module.__file__}: expected a class Params and one subclass of Method")
    if not getattr(networks[0], "spaces", None):
        raise TypeError(f"{module.__file__}: {networks[0].__name__} names no `spaces`, which the t-SNE shows")
    return MethodFile(name, params, networks[0])


def check_settings(name: str, settings: "dict[str, Any]", where: str = "") -> "Recipe":
    """A method's parameters, checked.

    Args:
        name: of the method.
        settings: its section of `params.yaml`, with alpha where it has one.
        where: they stand, for the message; empty: in `params.yaml`.

    Raises:
        UserError: a key is unknown, missing, of a wrong type or out of range.
    """
    from spp_scl.params import check

    return check(load_method(name).params, settings, where or "params.yaml", f"{name}.")


def require_settings(params: "Params") -> None:
    """Refuse wrong parameters of the chosen method before features are computed, which may take hours.

    Raises:
        UserError: see `check_settings` and `require_encoders`.
    """
    from spp_scl.recipe import choose_recipe

    check_settings(params.method, choose_recipe(params)["settings"])
    require_reads(params.method, params.encoders)


def require_reads(name: str, encoders: str) -> None:
    """Refuse encoders in the loop for a method that reads none, or word pieces, which only the cache has.

    Raises:
        UserError: it does.
    """
    from spp_scl.errors import UserError

    reads = load_method(name).network.reads
    if encoders != "frozen" and (reads.text == "pieces" or not reads.encoders):
        why = "reads word pieces" if reads.text == "pieces" else "reads no encoder"
        raise UserError(f"encoders: {encoders}: the method {name} {why}; it takes encoders=frozen")
