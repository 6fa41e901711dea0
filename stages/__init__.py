"""One script a stage."""

from spp_scl.errors import leave_when_interrupted

# Before the scripts import their libraries, which takes seconds.
leave_when_interrupted()
