"""The choices that a parameter allows, each written here once."""

from typing import Literal

Policy = Literal["drop", "blank", "error"]  # for a row that lacks its picture or its text
Protocol = Literal["auto", "published", "stratified", "grouped"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Padding = Literal["masked", "kept"]
Fusion = Literal["sample", "batch", "none"]
Layers = Literal["attention", "last"]
Modalities = Literal["both", "text", "image"]
Step2 = Literal["gated", "always", "never", "merged"]
Step2Forward = Literal["branches", "whole"]
ZeroGrad = Literal["none", "zeros"]
Anchors = Literal["image", "text"]
Comparison = Literal["exact", "float32"]  # of the gate's sigmoids
Keep = Literal["best", "last"]
Selection = Literal["f1_weighted", "f1_macro"]  # the validation metric that chooses the epoch
