"""Write what trains, without the parameters that it does not read."""

from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.recipe import choose_recipe, choose_views
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    with replacing("models/recipe.json") as recipe, replacing("models/views.json") as views:
        write_json(recipe, choose_recipe(params))
        write_json(views, choose_views(params))


if __name__ == "__main__":
    run_stage(main)
