"""Pictures, and their one style."""
