"""Labels for posts: a trained model with its encoders."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from spp_scl.batches.batch import FeatureStore
from spp_scl.encoders.image import ImageEncoder
from spp_scl.encoders.text import TextEncoder
from spp_scl.encoders.workers import in_order
from spp_scl.errors import UserError
from spp_scl.features.device import choose_device, choose_precision, has_bf16
from spp_scl.methods.shared.prediction import predict
from spp_scl.prediction.bundle import Bundle, load_bundle, load_encoder
from spp_scl.prediction.encoding import Encoding, encode_pictures, encode_texts, store
from spp_scl.prediction.explain import Explanation, occlude, read_attention
from spp_scl.prediction.posts import Picture, Post, Prepared, read_post

log = logging.getLogger(__name__)

# Posts whose features are in memory at once, but for a model that couples its batch.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Prediction:
    """What a model says of a post.

    Args:
        label: the class with the highest probability.
        probabilities: by class, in the dataset's order.
        explanation: what its parts add; None: not asked for.
    """

    label: str
    probabilities: Mapping[str, float]
    explanation: Explanation | None = None


class Predictor:
    """A trained model, ready for posts.

    `predictor = Predictor.load("models")`, then `predictor("Blue Jays game!", image="photo.jpg")`. The
    numbers are those of the pipeline: posts are prepared as its stages prepare them. Several threads may call
    it.
    """

    def __init__(
        self,
        bundle: Bundle,
        text_encoder: TextEncoder | None,
        image_encoder: ImageEncoder | None,
        precision: str | None = None,
    ):
        """Put it together; see `load`.

        Args:
            bundle: the model.
            text_encoder: None: the model reads no text.
            image_encoder: None: it reads no picture.
            precision: of the encoders; None: that of the training, where the machine has it, else fp32.
        """
        self.bundle, self.model, self.artifact = bundle, bundle.model, bundle.artifact
        self.classes = list(bundle.artifact.classes)
        self.device = choose_device()
        self.precisions = {kind: self._choose(kind, precision) for kind in ("image", "text")}
        self._text, self._image = text_encoder, image_encoder
        self.model.to(self.device)
        for kind, encoder in (("text", text_encoder), ("image", image_encoder)):
            if encoder is not None:
                encoder.optimize(self.device, self.precisions[kind])
        self._lock = threading.Lock()
        if self.model.couples_batch:
            log.warning(
                "%s: a prediction depends on the posts that share its batch: neighbors matter, and one post "
                "alone is another question than the metrics'",
                self.model.title,
            )

    @classmethod
    def load(
        cls,
        folder: Path | str = "models",
        *,
        text: str | None = None,
        image: str | None = None,
        precision: str | None = None,
    ) -> "Predictor":
        """Read a bundle: `models/` after `dvc repro`, or what `spp-scl export` has written.

        Args:
            folder: of the bundle.
            text: where its text encoder is, if not where it was; what `text_features.weights` takes.
            image: likewise, its image encoder.
            precision: of the encoders: `fp32`, `bf16` or `fp16`; None: that of the training, where the
                machine has it, else fp32.

        Raises:
            UserError: the bundle is missing, damaged or holds a pickled file; an encoder is missing or is
                another than the model was trained with.
        """
        bundle = load_bundle(folder)
        reads = bundle.model.reads
        text_encoder = load_encoder(bundle, "text", text) if reads.text else None
        image_encoder = load_encoder(bundle, "image", image) if reads.image else None
        assert not isinstance(text_encoder, ImageEncoder)
        assert not isinstance(image_encoder, TextEncoder)
        return cls(bundle, text_encoder, image_encoder, precision)

    @overload
    def __call__(
        self, post: str | None, image: Picture | None = None, *, explain: bool = False
    ) -> Prediction: ...
    @overload
    def __call__(self, post: Mapping[str, Any], *, explain: bool = False) -> Prediction: ...
    @overload
    def __call__(
        self,
        post: Sequence[Mapping[str, Any] | tuple[Any, Any]],
        *,
        batch_size: int | None = None,
        explain: bool = False,
    ) -> list[Prediction]: ...

    def __call__(
        self,
        post: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | tuple[Any, Any]] | None,
        image: Picture | None = None,
        *,
        batch_size: int | None = None,
        explain: bool = False,
    ) -> Prediction | list[Prediction]:
        """Label a post, or several.

        Args:
            post: a text; or a mapping with `text` and `image`; or a sequence of mappings or of (text, image).
            image: the post's picture, where `post` is a text: a path, the bytes of a file, a PIL image or an
                array (height, width, channels) of uint8.
            batch_size: posts that the encoders see at a time; None: as many as in training, which gives its
                numbers to the last digit.
            explain: also what each word, and each region of the picture, adds: a hundred predictions a post.

        Returns:
            A prediction, or a list of them, in the posts' order.

        Raises:
            UserError: a picture cannot be read, or a post is not one; of several, which.
        """
        if post is None or isinstance(post, str):
            given: Iterable[Any] = [{"text": post, "image": image}]
        elif image is not None:
            raise UserError("`image` goes with a text; here each post has its own")
        else:
            given = [post] if isinstance(post, Mapping) else post
        one = not isinstance(post, Sequence) or isinstance(post, str)
        given = list(given)
        numbers = [None] if one else range(len(given))

        def prepare(place: int) -> Prepared:
            return self.prepare(_read(given[place], numbers[place]))

        found = self.predict(list(in_order(prepare, range(len(given)), self.device)), batch_size)
        if explain:
            found = [
                replace(said, explanation=self.explain(_read(post, number), said.label))
                for post, number, said in zip(given, numbers, found, strict=True)
            ]
        return found[0] if one else found

    def explain(self, post: Post, label: str) -> Explanation:
        """What the parts of a post that was read add to the probability of a label."""
        reads = self.model.reads

        def score(posts: Iterable[Post]) -> np.ndarray:
            prepared = [self.prepare(one) for one in posts]
            # Where neighbors matter, variants of a post must not be neighbors.
            parts = [[one] for one in prepared] if self.model.couples_batch else [prepared]
            return np.array([said.probabilities[label] for part in parts for said in self.predict(part)])

        found = occlude(post, score, reads.text is not None, reads.image is not None)
        if not (post.text and post.picture) or self._text is None or self._image is None:
            return found
        with self._lock, torch.inference_mode():
            batch = self._encode([self.prepare(post)], None).batch(torch.zeros(1, dtype=torch.int64))
            return replace(found, attention=read_attention(self.model, batch, self._text, post.text))

    def prepare(self, post: Post) -> Prepared:
        """A post that was read (`read_post`) as the encoders get it; its picture need not be kept."""
        pixels = None
        if post.picture is not None and self._image is not None:
            pixels = self._image.prepare(post.picture)
        return Prepared(post.text, pixels)

    def predict(self, posts: Sequence[Prepared], batch_size: int | None = None) -> list[Prediction]:
        """Label posts that were prepared."""
        if batch_size is not None and batch_size < 1:
            raise UserError("batch_size: at least 1")
        at_once = max(1, len(posts)) if self.model.couples_batch else _AT_ONCE
        found: list[Prediction] = []
        with self._lock:
            for start in range(0, len(posts), at_once):
                logits = self._classify(posts[start : start + at_once], batch_size)
                for row in logits.softmax(dim=1).tolist():
                    by_class = dict(zip(self.classes, row, strict=True))
                    found.append(Prediction(max(by_class, key=by_class.__getitem__), by_class))
        return found

    def _classify(self, posts: Sequence[Prepared], batch_size: int | None) -> torch.Tensor:
        source = self._encode(posts, batch_size)
        rows = torch.arange(len(posts))
        return predict(self.model, source, rows, self.artifact.batch_size, self.artifact.seed).logits

    def _encode(self, posts: Sequence[Prepared], batch_size: int | None) -> FeatureStore:
        images = encode_pictures(posts, self._image, self._encoding("image", batch_size))
        texts = encode_texts(
            posts,
            self._text,
            self._encoding("text", batch_size),
            self.bundle.config["encoders"]["text"]["padding"],
            run=self.model.reads.text == "layers",
        )
        return store(images, texts, self.device)

    def _encoding(self, kind: str, batch_size: int | None) -> Encoding:
        info, in_loop = self.bundle.info(kind), bool(self.artifact.encoders)
        # The files of encoders in the loop have no batch size, and the model has.
        size = batch_size or info.batch_size or self.artifact.batch_size
        return Encoding(info, self.device, self.precisions[kind], size, half=not in_loop)

    def _choose(self, kind: str, precision: str | None) -> str:
        if precision is not None:
            return choose_precision(self.device, precision)
        trained = self.artifact.precision if self.artifact.encoders else self.bundle.info(kind).precision
        on_cpu = self.device.type == "cpu"
        if trained == "fp32" or (trained == "bf16" and (has_bf16() or not on_cpu)):
            return trained
        return "fp32" if on_cpu else choose_precision(self.device, "auto")


def _read(post: Any, number: int | None) -> Post:
    """Read a post; an error says which one of several it is, by its `number`."""
    try:
        return read_post(post)
    except (UserError, AttributeError, ValueError) as error:
        raise UserError(str(error) if number is None else f"post {number}: {error}") from None
