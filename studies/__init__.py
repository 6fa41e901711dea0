"""Studies: many runs of the pipeline as DVC experiments, and what they say together.

`python -m studies run ablations alpha --data sample`, then `python -m studies collect ablations alpha --data
sample`.
"""
