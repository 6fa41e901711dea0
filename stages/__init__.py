"""One script a stage."""

from spp_scl.stage import leave_when_interrupted

# Before the scripts import their libraries, which takes seconds.
leave_when_interrupted()
