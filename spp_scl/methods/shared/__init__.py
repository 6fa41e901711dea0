"""What several methods use: the contract, losses, layers."""
