"""The command `spp-scl export`: a bundle for another machine, with a model card."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.prediction.command import add_model_options


def main(arguments: Sequence[str]) -> None:
    """Copy the trained model.

    Args:
        arguments: those of the command line.

    Raises:
        UserError: there is no model, the folder is there already, or an encoder cannot be had.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl export",
        description="Copy the trained model with a model card (README.md, with Hugging Face's metadata), so "
        "that it can be used on another machine, or uploaded to the Hub as it is.",
        epilog="example: spp-scl export exported --with-encoders",
    )
    parser.add_argument("folder", type=Path, help="to make")
    add_model_options(parser)
    parser.add_argument(
        "--with-encoders",
        action="store_true",
        help="with the encoders' weights too (BERT-base and ResNet-50: half a gigabyte), so that nothing "
        "is downloaded where it is used",
    )
    options = parser.parse_args(arguments)
    if options.folder.exists():
        raise UserError(f"{options.folder}: is there already; give a folder that is not")
    places = {"text": options.text_encoder, "image": options.image_encoder}
    export(options.model, options.folder, options.with_encoders, places)
    print(f"{options.folder}: use it with `spp-scl predict --model {options.folder} ...`")


def export(
    model: Path | str, folder: Path, with_encoders: bool, places: Mapping[str, str | None] | None = None
) -> None:
    """Copy a bundle into a folder, which is made.

    Args:
        model: the bundle's folder.
        folder: to make.
        with_encoders: whether the encoders' weights are copied too.
        places: where encoders are, by `text` and `image`, if not where they were.

    Raises:
        UserError: the bundle is missing or damaged, or an encoder cannot be had, or not be packed.
    """
    import copy
    import shutil

    import safetensors.torch

    from spp_scl.encoders.weights import is_path
    from spp_scl.files import replacing, write_json
    from spp_scl.prediction.bundle import CONFIG, ENCODERS, WEIGHTS, load_bundle, load_encoder
    from spp_scl.prediction.card import write_card

    bundle = load_bundle(model)
    with replacing(folder) as aside:
        aside.mkdir()
        shutil.copyfile(bundle.folder / WEIGHTS, aside / WEIGHTS)
        config = copy.deepcopy(dict(bundle.config))
        for encoder in config["encoders"].values():
            if is_path(encoder["weights"]):  # the folders of this machine mean nothing elsewhere
                encoder["weights"] = Path(encoder["weights"]).name
        write_json(aside / CONFIG, config)
        (aside / "README.md").write_text(write_card(bundle, with_encoders), encoding="utf-8")
        packed = (
            [kind for kind in bundle.model.reads.kinds if kind not in bundle.model.encoders]
            if with_encoders
            else []
        )
        for kind in packed:
            network = load_encoder(bundle, kind, (places or {}).get(kind))
            description = network.describe()
            if kind == "text" and description["tokenizer"] is None:
                raise UserError(
                    f"--with-encoders: {bundle.info(kind).weights} has a slow tokenizer, which cannot be "
                    "packed; export without, and give the encoder where the model is used (--text-encoder)"
                )
            (aside / ENCODERS).mkdir(exist_ok=True)
            state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            (aside / ENCODERS / f"{kind}.safetensors").write_bytes(safetensors.torch.save(state))
            write_json(aside / ENCODERS / f"{kind}.json", description)
