"""Draw the t-SNE of the test set."""

from spp_scl.clean.table import read_parquet
from spp_scl.files import replacing
from spp_scl.params import load_params
from spp_scl.report.tsne import draw, project
from spp_scl.stage import run_stage


def main() -> None:
    params = load_params()
    embeddings = read_parquet("reports/embeddings.parquet", "evaluate")
    test = embeddings[embeddings["split"] == "test"]
    coordinates = project(test, params.tsne.perplexity, params.seed)
    title = f"t-SNE of the {len(test)} test tweets of {params.dataset}"
    with (
        replacing("reports/tsne.csv") as csv_path,
        replacing("reports/tsne.png") as picture_path,
    ):
        coordinates.to_csv(csv_path, index=False)
        draw(picture_path, coordinates, title)


if __name__ == "__main__":
    run_stage(main)
