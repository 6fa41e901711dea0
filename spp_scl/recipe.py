"""What trains: the chosen method with its parameters, and none of those that it does not read.

`train` reads this instead of `params.yaml`, so that another method's parameter trains nothing again.
"""

from typing import Any

from spp_scl.encoders.weights import choose_sources
from spp_scl.errors import UserError
from spp_scl.params import Params


def choose_recipe(params: Params) -> dict[str, Any]:
    """The recipe, as JSON takes it.

    A method's `alpha` that is null is the top-level one. The encoders' weights are part of a recipe only
    where they are in the loop, and `finetuned` only where they are trained.

    Raises:
        UserError: `params.yaml` has no section for the method.
    """
    if params.method not in params.methods:
        raise UserError(f"params.yaml: {params.method}: missing; the method's parameters")
    settings = dict(params.methods[params.method])
    if "alpha" in settings and settings["alpha"] is None:
        settings["alpha"] = params.alpha
    recipe: dict[str, Any] = {"method": params.method, "encoders": params.encoders, "settings": settings}
    if params.encoders != "frozen":
        recipe |= choose_sources(params.image_features, params.text_features, params.dataset)
    if params.encoders == "finetuned":
        recipe["finetuned"] = params.finetuned.model_dump()
    return recipe
