"""Evaluate the trained model on validation and test data."""

import logging

from spp_scl.clean.table import write_parquet
from spp_scl.evaluate.confusion import draw_confusion
from spp_scl.evaluate.evaluation import describe, evaluate
from spp_scl.files import replacing, write_json
from spp_scl.model.data import load_data
from spp_scl.params import load_params
from spp_scl.stage import run_stage
from spp_scl.train.artifact import load_model, require_features


def main() -> None:
    params = load_params()
    model_path = "models/model.safetensors"
    model, artifact = load_model(model_path)
    data = load_data(
        f"data/clean/{params.dataset}.parquet",
        f"data/split/{params.dataset}.parquet",
        f"data/features/{params.dataset}/image.h5",
        f"data/features/{params.dataset}/text.h5",
    )
    require_features(artifact, data.fingerprint, data.classes, model_path)
    result = evaluate(model, artifact, data)
    test = result.predictions[result.predictions["split"] == "test"]
    title = f"SPP-SCL on {params.dataset}: {len(test)} test tweets"
    with (
        replacing("reports/metrics.json") as metrics_path,
        replacing("reports/predictions.csv") as predictions_path,
        replacing("reports/per_class.csv") as per_class_path,
        replacing("reports/confusion.csv") as confusion_path,
        replacing("reports/confusion.png") as picture_path,
        replacing("reports/embeddings.parquet") as embeddings_path,
    ):
        write_json(metrics_path, result.metrics)
        result.predictions.to_csv(predictions_path, index=False)
        result.per_class.to_csv(per_class_path, index=False)
        test[["label", "prediction"]].to_csv(confusion_path, index=False)
        draw_confusion(picture_path, test, artifact.classes, title)
        write_parquet(result.embeddings, embeddings_path)
    logging.info(describe(result))


if __name__ == "__main__":
    run_stage(main)
