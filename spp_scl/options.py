"""The choices that a parameter allows, each written here once."""

from typing import Literal

Policy = Literal["drop", "blank", "error"]  # for a row that lacks its picture or its text
Protocol = Literal["auto", "published", "stratified", "grouped"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
# Of training: float16 needs its losses scaled, which nothing here does.
TrainingPrecision = Literal["auto", "fp32", "bf16"]
Padding = Literal["masked", "kept"]
Encoders = Literal["frozen", "live", "finetuned"]
Decay = Literal["linear", "none"]
Content = Literal["features", "inputs"]  # of a feature file: what an encoder gives, or what it gets
Missing = Literal["own", "skip"]  # for a tweet without a translation: its own text, or no second view
Keep = Literal["best", "last"]
Selection = Literal["f1_weighted", "f1_macro"]  # the validation metric that chooses the epoch
