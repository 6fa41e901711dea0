"""The page itself, of Gradio's parts: a post, a file of posts, and which model it is."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from spp_scl.errors import UserError
from spp_scl.page.answers import write_about, write_error, write_prediction, write_scores
from spp_scl.page.uploads import read_upload, score_upload
from spp_scl.prediction.predictor import Predictor
from spp_scl.raw.sample import make_picture, make_tweet

_COUPLED = (
    "With this model a prediction depends on the posts that share its batch: among others, it is another one."
)


def _take_path(payload: Any) -> str | None:
    """Instead of opening the picture: `read_upload` says what is wrong with it."""
    return None if payload is None else payload.path


def make_app(predictor: Predictor, folder: Path) -> gr.Blocks:
    """The page.

    Args:
        predictor: the model.
        folder: for the examples.
    """
    model, reads = predictor.model, predictor.model.reads
    coupled = _COUPLED if model.couples_batch else ""

    def answer(text: str | None, picture: str | None, explain: bool) -> Iterator[str]:
        try:
            post, notice = read_upload(text or "", picture, reads)
            prediction = predictor.predict([predictor.prepare(post)])[0]
        except UserError as error:
            yield write_error(str(error))
            return
        notices = [notice, coupled]
        yield write_prediction(post, prediction, [*notices, "Explaining it..." if explain else ""])
        if explain:
            yield write_prediction(post, prediction, notices, predictor.explain(post, prediction.label))

    def score(files: Sequence[str] | None) -> Iterator[tuple[str, str | None]]:
        # Gradio copies the scores to where uploads are.
        with tempfile.TemporaryDirectory() as own:
            try:
                path, scores = score_upload(predictor, files or (), Path(own))
            except UserError as error:
                yield write_error(str(error)), None
                return
            yield write_scores(scores, coupled), str(path)

    title = f"{model.title} on {predictor.bundle.config['dataset']}"
    with gr.Blocks(title=title, analytics_enabled=False) as app:
        gr.HTML("<h1>What does a post say, with its picture?</h1>")
        with gr.Tab("A post"):
            with gr.Row():
                with gr.Column():
                    text = gr.Textbox(
                        label="Text",
                        lines=3,
                        placeholder="Blue Jays game with the fam!",
                        visible=reads.text is not None,
                    )
                    picture = gr.Image(
                        label="Picture",
                        type="filepath",
                        sources=["upload", "clipboard"],
                        height=280,
                        visible=reads.image is not None,
                    )
                    # A class of our own would need a front end of its own.
                    setattr(picture, "preprocess", _take_path)  # noqa: B010
                    explain = gr.Checkbox(
                        value=True, label="Explain it", info="What each word and region adds; some seconds."
                    )
                    button = gr.Button("Predict", variant="primary")
                with gr.Column():
                    said = gr.HTML(label="Prediction", elem_id="said")
            gr.Examples(_make_examples(folder), [text, picture], label="Examples (generated)")
        with gr.Tab("A file of posts"):
            gr.HTML(
                "<p>A CSV, TSV or JSON Lines file with a column <code>text</code>, a column "
                "<code>image</code> (names of pictures), or both, and with it the pictures. "
                "At most 1,000 posts.</p>"
            )
            files = gr.File(label="The file, and its pictures", file_count="multiple", type="filepath")
            start = gr.Button("Score", variant="primary")
            summary = gr.HTML(label="Scores", elem_id="scores")
            scores = gr.File(label="Scores as a file", interactive=False)
        with gr.Tab("The model"):
            gr.HTML(write_about(predictor), elem_classes="about")
        asked = [text, picture, explain]
        # Two at a time: one is prepared while the other has the model; more pictures would only take memory.
        gr.on([button.click, text.submit], answer, asked, said, concurrency_limit=2, api_name="predict")
        start.click(score, files, [summary, scores], concurrency_limit=1, api_name="score")
    return app


def _make_examples(folder: Path) -> list[list[str]]:
    """Posts of the generated data, which nobody has written: one of each sentiment."""
    raw, rng = folder / "examples", random.Random(1)
    raw.mkdir()
    gr.set_static_paths([raw])  # else they are copied, and removed, like what is uploaded
    found = []
    for sentiment in ("positive", "neutral", "negative"):
        path = raw / f"{sentiment}.jpg"
        make_picture(rng, sentiment).save(path)
        found.append([make_tweet(rng, sentiment), str(path)])
    return found
