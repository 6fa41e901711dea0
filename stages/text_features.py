"""Texts to features of the text encoder, or to its tokens."""

from spp_scl.clean.table import read_clean
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.weights import choose_weights, require_encoders
from spp_scl.methods import require_settings
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    # Of both encoders: the features of one are of no use without those of the other.
    require_settings(params)
    require_encoders(params.image_features.weights, params.text_features.weights, params.dataset)
    encode_texts(
        read_clean(f"data/clean/{params.dataset}.parquet"),
        f"data/features/{params.dataset}/text.h5",
        weights=choose_weights(params.text_features.weights, params.dataset),
        seed=params.text_features.seed,
        batch_size=params.text_features.batch_size,
        precision=params.text_features.precision,
        max_positions=params.text_features.max_positions,
        padding=params.text_features.padding,
        content="features" if params.encoders == "frozen" else "inputs",
    )


if __name__ == "__main__":
    run_stage(main)
