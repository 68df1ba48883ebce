"""Influence of one training sample on another while a network learns in stages: theory, simulation, checks, figures.

``stagewise.theory``, ``stagewise.numerics``, ``stagewise.validation`` and ``stagewise.paper_figs`` are the four
packages of the same names, imported when they are first used. ``stagewise.plot`` draws any influence over training;
``stagewise.peaks`` and ``stagewise.sign_flips`` return what it marks as data.

Examples
--------
>>> import stagewise
>>> stagewise.theory.hierarchical_dataset().names[:2]
('dog', 'cat')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stagewise.origin import ForeignModule, refuse_foreign_modules

if TYPE_CHECKING:
    import numerics
    import paper_figs
    import theory
    import validation
    from paper_figs.influence_plot import plot
    from validation.trajectory_marks import peaks, sign_flips

__all__ = [
    "ForeignModule",
    "__version__",
    "numerics",
    "paper_figs",
    "peaks",
    "plot",
    "sign_flips",
    "theory",
    "validation",
]

_FUNCTIONS = {"plot": "paper_figs.influence_plot", "peaks": "validation", "sign_flips": "validation"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("stagewise")
    if name in ("theory", "numerics", "validation", "paper_figs"):
        refuse_foreign_modules()
        return import_module(name)
    if name in _FUNCTIONS:
        refuse_foreign_modules()
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"stagewise has no {name!r}; it holds {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
