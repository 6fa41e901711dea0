"""Which reader reads which dataset."""

from pathlib import Path

from spp_scl.raw.hfm import read_hfm
from spp_scl.raw.mvsa import read_mvsa
from spp_scl.raw.rows import RawRow
from spp_scl.raw.table import read_table


def read_dataset(name: str, folder: Path) -> list[RawRow]:
    """Read a dataset of the registry from its raw folder.

    Raises:
        UserError: a file is missing or malformed; see the readers.
    """
    match name:
        case "sample" | "mvsa_single":
            return read_mvsa(folder, annotators=1)
        case "mvsa_multiple":
            return read_mvsa(folder, annotators=3)
        case "hfm":
            return read_hfm(folder)
        case "table":
            return read_table(folder)
    raise ValueError(f"no reader for {name!r}")
