"""The Markdown files of this folder run as doctests; its configuration is not a test."""

import pytest

import validation.registry

collect_ignore = ["conf.py", "api", "_build"]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Claims that a page registers are gone after it."""
    monkeypatch.setattr("validation.registry._REGISTRY", dict(validation.registry._REGISTRY))
