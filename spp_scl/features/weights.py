"""Which weights an encoder takes when nobody says."""


def choose_weights(weights: str, dataset: str) -> str:
    """Resolve `auto`: the sample needs no download, and every other dataset deserves pretrained weights."""
    if weights != "auto":
        return weights
    return "untrained" if dataset == "sample" else "pretrained"
