"""One script a stage, which only wires: parameters in, one call, files out."""

from spp_scl.stage import prepare_process

prepare_process()
