"""Raw datasets: a reader for each published layout, one table of rows out of all of them."""
