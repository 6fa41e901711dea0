"""What trains: the chosen method with its parameters, and none of those that it does not read.

`train` reads this instead of `params.yaml`, so that another method's parameter trains nothing again.
"""

from typing import Any

from spp_scl.encoders.weights import choose_sources
from spp_scl.errors import UserError
from spp_scl.params import Params, ViewsParams, check


def choose_recipe(params: Params) -> dict[str, Any]:
    """The recipe, as JSON takes it.

    A method's `alpha` that is null is the top-level one, and another key that is null is what its part
    `published` has for the dataset. The encoders' weights are part of a recipe only where they are in the
    loop, and `finetuned` only where they are trained.

    Raises:
        UserError: `params.yaml` has no section for the method.
    """
    if params.method not in params.methods:
        raise UserError(f"params.yaml: {params.method}: missing; the method's parameters")
    settings = {key: value for key, value in params.methods[params.method].items() if key != "views"}
    if "alpha" in settings and settings["alpha"] is None:
        settings["alpha"] = params.alpha
    published = settings.pop("published", {})
    for key, value in published.get(params.dataset, published.get("otherwise", {})).items():
        if settings.get(key, value) is None:
            settings[key] = value
    recipe: dict[str, Any] = {"method": params.method, "encoders": params.encoders, "settings": settings}
    if params.encoders != "frozen":
        recipe |= choose_sources(params.image_features, params.text_features, params.dataset)
    if params.encoders == "finetuned":
        recipe["finetuned"] = params.finetuned.model_dump()
    return recipe


def choose_views(params: Params) -> dict[str, Any]:
    """What second views of the training tweets are made, as JSON takes it; empty: the method reads none.

    Raises:
        UserError: a key of the method's section `views` is wrong.
    """
    section = params.methods[params.method].get("views")
    if section is None:
        return {}
    views = check(ViewsParams, section, "params.yaml", f"{params.method}.views.")
    sources = choose_sources(params.image_features, params.text_features, params.dataset)
    image, text = params.image_features, params.text_features
    chosen: dict[str, Any] = {
        **views.model_dump(),
        "content": "features" if params.encoders == "frozen" else "inputs",
        "image": {**sources["image"], "batch_size": image.batch_size, "precision": image.precision},
        "text": {
            **sources["text"],
            "batch_size": text.batch_size,
            "precision": text.precision,
            "padding": text.padding,
        },
    }
    if chosen["content"] == "inputs":  # pictures are drawn in the loop
        del chosen["image"], chosen["draws"], chosen["seed"]
    return chosen
