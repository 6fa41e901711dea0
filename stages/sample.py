"""Generate the synthetic sample in MVSA-Single's raw layout."""

from spp_scl.files import replacing
from spp_scl.params import Params
from spp_scl.raw.sample import write_sample
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    with replacing("data/raw/sample") as folder:
        write_sample(folder, params.sample.pairs, params.sample.seed, params.sample.noise)


if __name__ == "__main__":
    run_stage(main)
