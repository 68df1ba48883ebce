"""Many measurements at once on the workers of any executor: sweeps, parts of a training run, and their stores."""
