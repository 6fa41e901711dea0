"""Feature files: what is in them, who wrote them, and reading them."""
