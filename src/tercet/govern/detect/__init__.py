"""Finding what a policy speaks of: credentials, personal data, instructions to a model."""
