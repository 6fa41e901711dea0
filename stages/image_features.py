"""Pictures to features of the image encoder, or to its pixels."""

from pathlib import Path

from spp_scl.clean.table import read_clean
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.weights import choose_weights, require_encoders
from spp_scl.methods import require_settings
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    # Of both encoders now: pictures may take hours, and texts come after them.
    require_settings(params)
    require_encoders(params.image_features.weights, params.text_features.weights, params.dataset)
    encode_images(
        read_clean(f"data/clean/{params.dataset}.parquet"),
        Path("data/raw") / params.dataset,
        f"data/features/{params.dataset}/image.h5",
        weights=choose_weights(params.image_features.weights, params.dataset),
        seed=params.image_features.seed,
        batch_size=params.image_features.batch_size,
        precision=params.image_features.precision,
        content="features" if params.encoders == "frozen" else "inputs",
    )


if __name__ == "__main__":
    run_stage(main)
