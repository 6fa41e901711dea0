"""The page on which people try a model: `spp-scl serve`."""
