"""Second views of the training tweets, where the chosen method reads them."""

import logging
from pathlib import Path

from spp_scl.checks.translations import describe_translations, find_translations
from spp_scl.clean.table import read_clean, read_parquet
from spp_scl.encoders.views import encode_views
from spp_scl.files import read_json, replacing, write_json
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    views = read_json("models/views.json", "what second views are made")
    images = Path(f"data/views/{params.dataset}/image.h5")
    texts = Path(f"data/views/{params.dataset}/text.h5")
    report = {}
    if views:
        table = read_clean(f"data/clean/{params.dataset}.parquet")
        split = read_parquet(f"data/split/{params.dataset}.parquet", "split")
        train = table[table["id"].isin(split.loc[split["split"] == "train", "id"])].reset_index(drop=True)
        raw, published = Path("data/raw") / params.dataset, Path("data/published") / params.dataset
        translations = find_translations(train, params.dataset, raw, published, views)
        report = describe_translations(train["text"].tolist(), translations)
        logging.info("%(translated)d of %(rows)d training tweets have a translation", report)
        if views["missing"] == "own":
            own = zip(translations, train["text"], strict=True)
            translations = [text if found is None else found for found, text in own]
        encode_views(train, translations, raw, images, texts, views, table["text"].tolist())
    else:
        for path in (images, texts):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("no second views\n")  # DVC warns of an empty file
    with replacing("reports/views.json") as path:
        write_json(path, report)


if __name__ == "__main__":
    run_stage(main)
