"""Closed forms for influence while a network learns in stages. numpy, scipy and sympy only."""

import lazy_loader

# Names are listed in __init__.pyi and looked up when they are first used, so that importing a package costs little.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
