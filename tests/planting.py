"""Faults planted in the code under the ledger: a function replaced by a wrong one wherever it is imported."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Fault:
    """A wrong version of the function ``target`` ("module:name", or "module:class.method"), made from the right one."""

    name: str
    target: str
    wrong: Callable
    claim: str
    slow: bool = False


def planted(monkeypatch, fault):
    """Put the wrong function in the place of the right one, wherever it has been imported."""
    module, _, path = fault.target.partition(":")
    owner = import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    right = getattr(owner, name)
    wrong = fault.wrong(right)
    monkeypatch.setattr(owner, name, wrong)
    for module_name, loaded in list(sys.modules.items()):
        ours = module_name.split(".")[0] in ("theory", "numerics", "validation")
        if ours and not outer and getattr(loaded, name, None) is right:
            monkeypatch.setattr(loaded, name, wrong)


def clear_kept_results():
    """Forget what modules keep between runs: a planted fault must not find the results of the right function."""
    for name, module in list(sys.modules.items()):
        if name.startswith("validation"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def edited(old, new):
    """Replace text in the source of a function or method, and make the function of the result."""

    def wrong(right):
        source = textwrap.dedent(inspect.getsource(right))
        assert old in source, f"{old!r} does not stand in {right.__qualname__}"
        scope = dict(inspect.unwrap(right).__globals__)  # not those of a wrapper that checks shapes
        exec(
            compile("from __future__ import annotations\n" + source.replace(old, new), right.__qualname__, "exec"),
            scope,
        )
        return scope[right.__name__]

    return wrong
