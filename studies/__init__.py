"""Studies: many runs of the pipeline as DVC experiments, and what they say together.

`spp-scl studies run ablations alpha --data sample`, then `spp-scl studies collect` with the same arguments.
"""
