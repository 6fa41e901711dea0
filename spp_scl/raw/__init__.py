"""Raw datasets: one reader for each layout; every reader returns the same rows."""
