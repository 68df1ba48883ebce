"""Group influence against the matrix of all pairs, which it never forms."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from numerics import group_influence

NAMES = [f"t{k}" for k in range(7)]
GROUPS = {"a": ["t0", "t1", "t2"], "b": ["t2", "t3", "t5"], "alone": ["t6"]}
KINDS = dict(zip(NAMES, "xyxyzzx", strict=True))


def some_draws(seed=0, epochs=2, chains=3, draws=20, names=NAMES, scale=1.0):
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(epochs, chains, draws, len(names))) @ rng.normal(size=(len(names), len(names))) * scale
    coords = {"epoch": np.arange(epochs) * 10.0, "sample": names}
    return xr.DataArray(losses + rng.normal(size=len(names)), coords, ("epoch", "chain", "draw", "sample"))


def mean_over_pairs(matrix, a, b, kinds):
    pairs = [(NAMES.index(i), NAMES.index(j)) for i in a for j in b if kinds is None or kinds[i] != kinds[j]]
    return np.mean([matrix[i, j] for i, j in pairs]) if pairs else np.nan


@given(
    seed=st.integers(0, 2**31),
    normalised=st.booleans(),
    kinds=st.sampled_from([None, KINDS, dict.fromkeys(NAMES, "x"), {n: n for n in NAMES}]),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
)
def test_groups_average_over_the_pairs_of_the_matrix(seed, normalised, kinds, scale):
    draws = some_draws(seed, scale=scale)
    result = group_influence(draws, GROUPS, kinds=kinds, normalised=normalised)
    for t in range(2):
        flat = draws.values[t].reshape(-1, 7)
        matrix = np.corrcoef(flat.T) if normalised else np.cov(flat.T)
        for g, a in GROUPS.items():
            for h, b in GROUPS.items():
                expected = mean_over_pairs(matrix, a, b, kinds)
                # Sixty products a sum in float64; what is subtracted is no larger than the sum of all pairs.
                np.testing.assert_allclose(
                    result[t].sel(source=g, query=h), expected, rtol=1e-10, atol=1e-12 * np.abs(matrix).max() * 9
                )


def test_chunks_of_draws_change_nothing(monkeypatch):
    whole = group_influence(some_draws(), GROUPS, kinds=KINDS)
    monkeypatch.setattr("numerics.sampling.groups._CHUNK", 40)
    np.testing.assert_allclose(group_influence(some_draws(), GROUPS, kinds=KINDS), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("groups", "more", "match"),
    [
        ({}, {}, "groups names no group"),
        ({"a": []}, {}, "group 'a' must name at least one sample"),
        ({"a": ["t0", "t0"]}, {}, "none twice"),
        ({"a": ["t9"]}, {}, "group 'a' names 't9', which was not drawn"),
        ({"a": ["t0", "t1"]}, {"kinds": {"t0": 1}}, "does not say of which kind sample 't1' is"),
    ],
)
def test_bad_groups_are_refused(groups, more, match):
    with pytest.raises(ValueError, match=match):
        group_influence(some_draws(), groups, **more)


def test_bad_draws_are_refused():
    draws = some_draws()
    with pytest.raises(ValueError, match=r"\(epoch, chain, draw, sample\) are needed"):
        group_influence(draws[0], GROUPS)
    draws[1, :, :, 2] = 4.0
    with pytest.raises(ValueError, match="sample 't2' does not vary at epoch 10"):
        group_influence(draws, GROUPS)
    assert np.isfinite(group_influence(draws, GROUPS, normalised=False)).all()
    with pytest.raises(ValueError, match="at least 2 draws"):
        group_influence(draws[:, :1, :1], GROUPS)


def test_trust_of_groups_is_that_of_the_products_of_their_sums():
    """Independent draws: R-hat within its noise of 1, ESS of 2000 within that of a variance; chains apart: unusable."""
    noise = np.random.default_rng(0).normal(size=(2, 4, 500, 4))
    coords = {"epoch": [0.0, 10.0], "sample": list("abcd")}
    groups = {"ab": ["a", "b"], "cd": ["c", "d"]}

    def found(values, **more):
        draws = xr.DataArray(values, coords, ("epoch", "chain", "draw", "sample"))
        return group_influence(draws, groups, **more).attrs

    good = found(noise)
    assert good["trust"] == "good"
    # R-hat^2 - 1 is chi^2_7 / 2000 (`trust`), below 0.04 up to chi^2 = 80; the effective number of 2000 independent
    # products is estimated to some tenth
    assert abs(good["r_hat"] - 1) < 0.02
    assert 1000 < good["ess"] < 3000
    apart = noise.copy()
    apart[1, 0] += 5.0  # a chain elsewhere: every product has a level of its own there
    assert found(apart)["r_hat"] > 1.1
    assert "R-hat above" in found(apart)["trust"]
    kinds = dict(zip("abcd", [0, 1, 0, 1], strict=True))
    assert found(noise, kinds=kinds)["trust"] == "good"
    assert found(noise[:, :, :3])["trust"].startswith("not known: draws are too few")
    assert found(noise, kinds=dict.fromkeys("abcd", 0))["trust"] == "not known: no pair counts"
