"""Settings shared by all tests: shape-checked signatures, reproducible property tests, deliberate thread counts."""

import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Annotated shapes and types of every function are checked while the tests run.
_hook = install_import_hook(["theory", "numerics", "validation", "paper_figs"], "typechecker.check")
_hook.__enter__()

# A failing example prints the blob that reproduces it; time limits belong to benchmarks, not to shared machines.
settings.register_profile(
    "stagewise", deadline=None, print_blob=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("stagewise")

torch.set_num_threads(1)
