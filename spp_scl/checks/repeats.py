"""Test tweets that are in the training data too: the same text, the same picture, or nearly."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from spp_scl.clean.pictures import reopen_picture
from spp_scl.clean.texts import normalize
from spp_scl.errors import UserError, first_line
from spp_scl.previous import damaged_output
from spp_scl.progress import progress

# Of the 64 bits of a perceptual hash, how many may differ in nearly identical pictures: a picture saved
# again, scaled or slightly recolored stays within; pictures of different things differ in 32 or so.
NEAR = 4

# A hash of a picture with anything in it has 32 bits set, or about; of one color, a few at random.
_PLAIN = 16

KINDS = ("text", "picture", "near_picture")


def find_repeats(table: pd.DataFrame, split: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Find each test tweet's twins in train.

    Args:
        table: a clean table.
        split: its split.
        folder: the raw folder that its `image` column is relative to.

    Returns:
        One row a test tweet: id, and for each of `KINDS` the id of a training tweet that has the same
        normalized text, the same picture, or a nearly identical one (an equal one included): the first of
        the same label, or else the first; null where there is none.

    Raises:
        UserError: a picture is gone.
    """
    joined = table.merge(split.rename(columns={"split": "side"}), on="id")
    train, test = joined[joined["side"] == "train"], joined[joined["side"] == "test"]
    found = pd.DataFrame({"id": test["id"]})
    keys = joined["text"].map(normalize).replace("", None)
    found["text"] = _first_with(keys, train, test)
    found["picture"] = _first_with(joined["picture"], train, test)
    found["near_picture"] = _first_near(train, test, folder)
    return found.astype(dict.fromkeys(KINDS, "str")).reset_index(drop=True)


def read_repeats(path: Path | str, ids: Sequence[str]) -> pd.DataFrame:
    """Read what `find_repeats` has found, in the order of the test tweets `ids`.

    Raises:
        UserError: it is missing, damaged or of other tweets.
    """
    try:
        # Ids may look like numbers, or like nothing.
        found = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=dict.fromkeys(KINDS, ""))
        if list(found.columns) != ["id", *KINDS] or set(found["id"]) != set(ids):
            raise ValueError("of other test tweets")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `dvc repro repeats`") from None
    except ValueError as error:  # of pandas, too
        raise damaged_output(first_line(error), path) from None
    return found.set_index("id").loc[list(ids)].reset_index()


def _first_with(keys: pd.Series, train: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    train, test = train.assign(key=keys), test.assign(key=keys)

    def first(by: list[str]) -> pd.Series:
        known = train.dropna(subset="key").drop_duplicates(by)[[*by, "id"]]
        return test[by].merge(known, on=by, how="left")["id"].set_axis(test.index)

    return first(["key", "label"]).fillna(first(["key"]))


def _first_near(train: pd.DataFrame, test: pd.DataFrame, folder: Path) -> list[str | None]:
    # Equal pictures are decoded once.
    pictures = pd.concat([train, test]).dropna(subset="picture").drop_duplicates("picture")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        paths = [folder / name for name in pictures["image"]]
        hashed = progress(pool.map(perceptual_hash, paths), desc="repeats", unit="pictures", total=len(paths))
        codes = dict(zip(pictures["picture"], hashed, strict=True))
    train = train.dropna(subset="picture")
    known = np.array([codes[picture] for picture in train["picture"]], np.uint64)
    ids, labels = train["id"].to_numpy(), train["label"].to_numpy()
    found: list[str | None] = []
    for picture, label in zip(test["picture"], test["label"], strict=True):
        near = np.zeros(len(ids), dtype=bool)
        if pd.notna(picture):
            near = (train["picture"] == picture).to_numpy()
            if np.bitwise_count(codes[picture]) >= _PLAIN:
                near = near | (np.bitwise_count(known ^ codes[picture]) <= NEAR)
        if (same := near & (labels == label)).any():
            near = same
        found.append(ids[np.argmax(near)] if near.any() else None)
    return found


def perceptual_hash(path: Path) -> np.uint64:
    """The 64 bits of a picture's pHash: which of its lowest frequencies are above their median.

    Raises:
        UserError: the picture cannot be read any more.
    """
    import imagehash  # here: it takes half a second, and the audit only reads what was found

    return np.packbits(imagehash.phash(reopen_picture(path)).hash.flatten()).view(">u8")[0].astype(np.uint64)
