"""Write what trains, without the parameters that it does not read."""

from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.recipe import choose_recipe
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    with replacing("models/recipe.json") as path:
        write_json(path, choose_recipe(params))


if __name__ == "__main__":
    run_stage(main)
