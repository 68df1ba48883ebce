"""The faults that are planted, on a source small enough to list them."""

import pytest
from mutation.mutants import mutants_of

SOURCE = '''
"""Text with 1 < 2 in it."""
__all__ = ["f"]
_CHUNK = 7


def f(x: "1 + 1", n=2):
    """Return 1 + 1."""
    if not x < n:
        raise ValueError(f"{x + 1} is bad", 3)
    step = max(1, _CHUNK // 2)
    return g(x, -n, strict=True)[n:, step]
'''


@pytest.fixture
def mutants(tmp_path):
    (tmp_path / "small.py").write_text(SOURCE)
    return mutants_of(tmp_path, "small.py")


def test_all_faults_of_a_small_source(mutants):
    assert sorted((m.original, m.replacement) for m in mutants) == [
        ("-n", "(n)"),
        ("2", "(1)"),
        ("2", "(3)"),
        ("g(x, -n, strict=True)", "(g(-n, x, strict=True))"),
        ("not x < n", "(not not x < n)"),
        ("not x < n", "(x < n)"),
        ("return g(x, -n, strict=True)[n:, step]", "return None"),
        ("x < n", "(x <= n)"),
        ("x < n", "(x > n)"),
    ]


def test_each_fault_changes_its_place_only(mutants):
    source = SOURCE.encode()
    for mutant in mutants:
        changed = mutant.apply(source)
        compile(changed, "small.py", "exec")
        assert changed[: mutant.begin] == source[: mutant.begin]
        assert changed.endswith(source[mutant.end :])
        assert source[mutant.begin : mutant.end].decode() == mutant.original
        assert mutant.lines[0] <= mutant.line <= mutant.lines[1]


def test_a_fault_is_seen_by_what_executes_its_statement(mutants):
    """A condition counts without the body that it guards."""
    (found,) = {m.lines for m in mutants if m.original == "x < n"}
    assert found == (9, 9)
