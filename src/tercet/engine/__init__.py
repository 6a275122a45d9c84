"""Running a model: one small contract, and who keeps it."""
