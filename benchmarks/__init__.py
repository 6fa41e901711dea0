"""Benchmarks, a program a question: `python -m benchmarks.epoch_bare`, or all of them by `make bench`.

Each prints its figures, and compares what it compares on the same machine in the same run, alternating, by
medians of at least five.
"""
