"""The trainable network, what it is fed with, what it predicts and how well."""
