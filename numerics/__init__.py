"""Simulation: training, retraining, sampling and curvature, on torch."""

import lazy_loader

# Names are listed in __init__.pyi and looked up when they are first used, so that importing a package costs little.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
