"""Batches from prepared inputs, with the encoders in the loop.

Shapes: B batch, T token positions, W words in all, M pictures in all, L layers, D text width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from spp_scl.batches.batch import Arrangement, Batch, FeatureStore, Sizes, Text
from spp_scl.encoders.parallel import run_shared
from spp_scl.errors import UserError
from spp_scl.features.device import autocast
from spp_scl.features.encoder import hash_weights
from spp_scl.features.store import ImageFeatures, ImageInputs, TextFeatures, TextInputs
from spp_scl.progress import progress


class InputStore:
    """All rows' token ids and pixels; `use` says through which encoders they go.

    An encoder runs in each call of a batch's `text` and `image`: in training mode, and with gradients, as the
    module that holds it is set.
    """

    def __init__(
        self,
        images: ImageInputs,
        texts: TextInputs,
        labels: torch.Tensor,
        device: torch.device,
        text_of: torch.Tensor | None = None,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        """Take a file's rows; arguments as `FeatureStore`'s.

        Args:
            augment: changes pictures, (M, 3, H, W) uint8, each time that a batch's are asked for.
        """
        self.device, self._augment = device, augment
        self._text_of = torch.arange(len(texts.offsets) - 1) if text_of is None else text_of
        self.views: dict[str, Any] = {}
        self._labels, self._texts, self._images = labels, texts, images
        self._index, self._pixels = images.index, images.pixels
        self._tokens = texts.offsets.diff()[self._text_of]
        around = texts.prefix + texts.suffix
        positions = self._tokens
        if texts.padding == "kept":
            positions = torch.where(self._tokens > 0, texts.max_positions, 0)
        self.lengths = (positions - around).clamp(min=0)
        self._encoders: dict[str, Any] = {}
        self._precision = "fp32"

    def use(self, encoders: nn.ModuleDict, precision: str) -> None:
        """Take these encoders, `text` and `image` or one of them, from now on.

        Args:
            encoders: on the device; whether they are trained is theirs (`requires_grad`).
            precision: `fp32`, `bf16` or `fp16`, in which they compute; what they give is float32.
        """
        for store in (self, *(views.source for views in self.views.values())):
            store._encoders, store._precision = dict(encoders.items()), precision

    def require(self, encoders: nn.ModuleDict) -> None:
        """Refuse other encoders than those that prepared the inputs.

        Raises:
            UserError: one has other weights, or another vocabulary.
        """
        for name, file in (("image", self._images), ("text", self._texts)):
            if name not in encoders:
                continue
            encoder: Any = encoders[name]
            more = [encoder.vocabulary_hash()] if name == "text" else []
            if hash_weights(encoder.state_dict(), *more) != file.encoder.sha256:
                raise UserError(
                    f"{name}_features.weights: not the encoder that prepared the inputs, which has been "
                    f"replaced since; run `dvc repro {name}_features --force`"
                )

    def sizes(self, classes: int) -> Sizes:
        """See `Source`; an encoder that is not in use counts 0."""
        text, image = (self._encoders.get(name) for name in ("text", "image"))
        return Sizes(
            classes,
            getattr(text, "layers", 0),
            getattr(text, "width", 0),
            getattr(image, "positions", 0),
            getattr(image, "channels", 0),
            torch.zeros(0, 0),  # a method that reads word pieces alone has no encoder in the loop
        )

    def batch(self, rows: torch.Tensor) -> Batch:
        """See `Source`."""
        arranged = Arrangement.of(rows, self.lengths, self._labels, self._index, self.device)
        rows, packing, pictures = arranged.rows, arranged.packing, arranged.pictures

        def text() -> Text:
            encoder = self._encoders["text"]
            # No encoder sees a blank text; one of special tokens alone has no words either, and is seen.
            seen = (self._tokens[rows] > 0).nonzero()[:, 0]
            ids, mask = self._pad(rows[seen])
            if not len(ids):
                empty = torch.zeros(0, encoder.layers, encoder.width, device=self.device)
                return Text(empty, empty.new_zeros(len(rows), *empty.shape[1:]))
            states = self._run(encoder, ids, mask)  # (B, T, L, D)
            seen, texts = seen.to(self.device), torch.arange(len(ids), device=self.device)
            place = texts.new_zeros(len(rows)).index_copy(0, seen, texts)[packing.text]
            before: int | torch.Tensor = self._texts.prefix
            if self._texts.padding_side == "left" and self._texts.padding != "kept":
                before = before + ids.shape[1] - mask.sum(dim=1)[place]
            cls = states.new_zeros(len(rows), *states.shape[2:])
            cls = cls.index_copy(0, seen, states[texts, encoder.summary(mask)])
            return Text(states[place, packing.time + before], cls)

        def image() -> torch.Tensor:
            encoder = self._encoders["image"]
            if not len(pictures):
                return torch.zeros(0, encoder.positions, encoder.channels, device=self.device)
            pixels = self._pixels[pictures]
            if self._augment is not None:
                pixels = self._augment(pixels)
            return self._run(encoder, pixels.to(self.device))

        def pieces() -> torch.Tensor:
            raise UserError("encoders: word pieces are read from the cache alone; choose encoders=frozen")

        return Batch(
            **arranged.fields,
            text=text,
            image=image,
            pieces=pieces,
            view=lambda name: self.views[name].of(rows),
        )

    @torch.inference_mode()
    def encode(self, rows: torch.Tensor, batch_size: int) -> FeatureStore:
        """Run the encoders over rows once and keep what they give, in float32 in main memory.

        Args:
            rows: (n,) int64; the others have neither a text nor a picture in the result.
            batch_size: rows at a time.
        """
        sizes, total = self.sizes(0), len(self.lengths)
        words: list[torch.Tensor] = [torch.zeros(0, sizes.layers, sizes.text_width)] * total
        cls = torch.zeros(total, sizes.layers, sizes.text_width)
        index, maps = torch.full((total,), -1), [torch.zeros(0, sizes.positions, sizes.channels)]
        found = 0
        rows = rows[self.lengths[rows].argsort(descending=True, stable=True)]  # as `predict` takes them
        for part in progress(rows.split(batch_size), desc="encode", unit="batches"):
            batch = self.batch(part)
            own = part[batch.order]
            if "text" in self._encoders:
                text = batch.text()
                cls[own] = text.cls.cpu()
                for i, row in enumerate(own.tolist()):
                    words[row] = text.words[batch.packing.text == i].cpu()
            if "image" in self._encoders:
                maps.append(batch.image().cpu())
                having = own[batch.has_image.cpu()]
                index[having] = torch.arange(found, found + len(having))
                found += len(having)
        offsets = torch.tensor([0, *map(len, words)]).cumsum(0)
        unknown = torch.zeros(int(offsets[-1]), dtype=torch.int32)
        return FeatureStore(
            ImageFeatures([], index, torch.cat(maps), self._images.encoder, ""),
            TextFeatures(
                [], offsets, torch.cat(words), cls, unknown, torch.zeros(0, 0), self._texts.encoder, ""
            ),
            self._labels,
            self.device,
        )

    def _pad(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask of rows that have a text, (B, T) each."""
        lengths = self._tokens[rows]
        if not len(rows):
            return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64)
        longest = self._texts.max_positions if self._texts.padding == "kept" else int(lengths.max())
        ids = torch.full((len(rows), longest), self._texts.pad_id)
        steps = torch.arange(longest)
        mask = steps < lengths[:, None]
        if self._texts.padding_side == "left":
            mask = mask.flip(1)
        starts = self._texts.offsets[self._text_of[rows]]
        # All tokens, text by text, as the mask takes them.
        skipped = (starts - lengths.cumsum(0) + lengths).repeat_interleave(lengths)
        ids[mask] = self._texts.tokens[torch.arange(len(skipped)) + skipped].long()
        return ids.to(self.device), mask.long().to(self.device)

    def _run(self, encoder: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        trained = torch.is_grad_enabled() and next(encoder.parameters()).requires_grad
        with torch.set_grad_enabled(trained), autocast(self.device, self._precision):
            return run_shared(lambda *own: encoder(*own).float(), *inputs)
