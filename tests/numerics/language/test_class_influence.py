"""Class influence and single pairs against the matrix of all pairs; recall by hand and without information."""

import time
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import chance_recall, class_influence, class_recall, token_influence, top_influences

N, J = 3, 4


def some_draws(seed=0, epochs=2, chains=3, draws=20, scale=1.0):
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(epochs, chains, draws, N * J)) @ rng.normal(size=(N * J, N * J)) * scale
    losses += 3 * scale * rng.normal(size=(epochs, chains, 1, N * J))  # chains that have not mixed
    return losses.reshape(epochs, chains, draws, N, J)


def some_classes(seed=0):
    rng = np.random.default_rng(seed)
    classes = {name: rng.random((N, J)) < 0.5 for name in "abc"}
    for members in classes.values():
        members[tuple(rng.integers((N, J)))] = True
    return classes


def labels_of(kind, seed):
    grid = np.arange(N * J).reshape(N, J)
    ids = np.random.default_rng(seed).integers(5, size=(N, J))
    return {"position": ("position", grid), "sequence": ("sequence", grid // J), "ids": (ids, ids)}[kind]


def matrices(losses, within):
    """Return correlation and covariance of all pairs by numpy, float64."""
    centred = losses - losses.mean(axis=1 if within else (0, 1), keepdims=True)
    flat = centred.reshape(-1, N * J)
    free = len(flat) - (len(losses) if within else 1)
    covariance = flat.T @ flat / free
    scale = np.sqrt(np.diag(covariance))
    return {"correlation": covariance / np.outer(scale, scale), "covariance": covariance}


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["position", "sequence", "ids"]),
    scale=st.sampled_from([1e-3, 1.0]),
)
def test_classes_average_over_the_pairs_of_the_matrix(seed, kind, scale):
    draws, classes = some_draws(seed, scale=scale), some_classes(seed)
    apart, labels = labels_of(kind, seed)
    found = class_influence(draws, classes, apart=apart, blocks=2)
    allowed = labels.ravel()[:, None] != labels.ravel()
    for t in range(2):
        for suffix, within in (("", False), ("_within", True)):
            for name, matrix in matrices(draws[t].reshape(3, 20, -1), within).items():
                for a, in_a in classes.items():
                    for b, in_b in classes.items():
                        pairs = np.outer(in_a.ravel(), in_b.ravel()) & allowed
                        assert found["pairs"].sel(source=a, query=b) == pairs.sum()
                        expected = matrix[pairs].mean() if pairs.any() else np.nan
                        value = found[name + suffix].isel(epoch=t).sel(source=a, query=b)
                        # Sums of 60 draws x 144 pairs in float64, from which those of equal labels are subtracted.
                        np.testing.assert_allclose(value, expected, atol=1e-11 * np.abs(matrix).max() * 144)


@pytest.mark.parametrize("kind", ["position", "sequence", "ids"])
def test_pieces_of_tokens_change_nothing(kind, monkeypatch):
    apart, _ = labels_of(kind, 3)
    whole = class_influence(some_draws(), some_classes(), apart=apart, blocks=2)
    monkeypatch.setattr("numerics.language.class_influence._NUMBERS_TOGETHER", 130)
    pieces = class_influence(some_draws(), some_classes(), apart=apart, blocks=2)
    for name in ("correlation", "covariance_within", "correlation_error", "pairs"):
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-9, atol=1e-12)


def test_standard_errors_are_those_of_independent_draws():
    """Of 100 runs of independent draws the spread of the estimates is what each run says of itself."""
    classes = {"a": [[1, 1, 1, 0, 0, 0]], "b": [[0, 0, 0, 1, 1, 1]]}
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    runs = [class_influence(rng.normal(size=(1, 4, 64, 1, 6)) @ mix, classes) for _ in range(100)]
    values = np.array([run["covariance"].sel(source="a", query="b").item() for run in runs])
    for name in ("covariance_error", "covariance_chain_error"):
        said = np.sqrt(np.mean([run[name].sel(source="a", query="b").item() ** 2 for run in runs]))
        # A standard deviation of 100 numbers has relative error 1 / sqrt(200) = 7 %, the mean of squares of 3 degrees
        # of freedom that of 100 runs 4 %: four of both.
        assert 0.68 < said / values.std(ddof=1) < 1.32


def test_a_token_that_stands_still_is_counted():
    draws = some_draws()
    draws[..., 0, 0] = 1.0
    found = class_influence(draws, {"a": np.ones((N, J)), "b": np.eye(N, J)}, blocks=2)
    assert found["still"].values.tolist() == [[1, 1], [1, 1]]
    assert np.isfinite(found["correlation"]).all()


@pytest.mark.parametrize(
    ("classes", "more", "match"),
    [
        ({}, {}, "classes names no class"),
        ({"a": np.zeros((N, J))}, {}, "class 'a' holds no token"),
        ({"a": np.ones((N, J + 1))}, {}, "class 'a' has shape"),
        ({"a": np.ones((N, J))}, {"apart": "token"}, "apart must be one of"),
        ({"a": np.ones((N, J))}, {"apart": np.zeros(3, int)}, "labels have shape"),
        ({"a": np.ones((N, J))}, {"blocks": 11}, "do not make 11 blocks"),
    ],
)
def test_what_does_not_fit_is_refused(classes, more, match):
    with pytest.raises(ValueError, match=match):
        class_influence(some_draws(), classes, **({"blocks": 2} | more))


def test_the_papers_size_takes_a_second_and_little_memory():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(1, 4, 200, 600, 55)).astype(np.float32)
    classes = {f"c{a}": rng.random((600, 55)) < 0.12 for a in range(12)}
    ids = (rng.pareto(1.0, size=(600, 55)) * 5).astype(int) % 8000
    for apart in ("position", "sequence", ids):
        start = time.process_time()
        class_influence(draws, classes, apart=apart)
        assert time.process_time() - start < 1.5 * 1.5  # the bar is 1.5 s; half as much again for a shared machine
    tracemalloc.start()
    class_influence(draws, classes)
    assert tracemalloc.get_traced_memory()[1] < 2**30
    tracemalloc.stop()


# --- single pairs ------------------------------------------------------------------------------------------------


def test_pairs_are_those_of_the_matrix():
    draws = some_draws()
    found = token_influence(draws, [[0, 1], [2, 3]], [[1, 0]])
    for t in range(2):
        for suffix, within in (("", False), ("_within", True)):
            for name, matrix in matrices(draws[t].reshape(3, 20, -1), within).items():
                np.testing.assert_allclose(found[name + suffix][t, :, 0], matrix[[1, 11], 4], rtol=1e-10)
    assert found["source"].values.tolist() == ["0:1", "2:3"]


def test_effective_draws_of_an_autoregressive_chain():
    """X y of two AR(1) chains of coefficient r, x y has autocorrelation r^2."""
    r, rng = 0.9, np.random.default_rng(0)
    noise = rng.normal(size=(1, 8, 4000, 1, 2))
    for k in range(1, 4000):
        noise[:, :, k] = r * noise[:, :, k - 1] + np.sqrt(1 - r * r) * noise[:, :, k]
    found = token_influence(noise, [[0, 0]], [[0, 1]])
    expected = 8 * 4000 * (1 - r**2) / (1 + r**2)
    assert found["effective_draws"].item() == pytest.approx(expected, rel=0.2)
    assert abs(found["covariance"].item()) < 4 * found["covariance_error"].item()


@pytest.mark.parametrize(
    ("sources", "match"), [([[3, 0]], "token \\(3, 0\\)"), ([0, 1], "shape \\(m, 2\\)"), ([[0.5, 1]], "whole numbers")]
)
def test_tokens_that_are_not_there_are_refused(sources, match):
    with pytest.raises(ValueError, match=match):
        token_influence(some_draws(), sources, [[0, 0]])


# --- recall --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), within=st.booleans())
def test_top_influences_are_those_of_the_matrix(seed, within):
    draws = some_draws(seed, epochs=1)[0].reshape(3, 20, -1)
    ids = np.random.default_rng(seed).integers(6, size=N * J)
    matrix = matrices(draws, within)["correlation"]
    matrix[ids[:, None] == ids] = -np.inf
    fewest = int((ids[:, None] != ids).sum(axis=1).min())
    if fewest < 2:
        return
    found, values = top_influences(list(draws), ids, k=2, within=within)
    expected = -np.sort(-matrix, axis=1)[:, :2]
    np.testing.assert_allclose(values, expected, atol=1e-5)  # products of unit vectors in float32
    np.testing.assert_allclose(np.take_along_axis(matrix, found, axis=1), expected, atol=1e-5)


def test_the_printed_rule_by_hand():
    """Four tokens of ids 0, 0, 1, 2; the rate of a class leaves out the tokens equal to the query."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(400, 3))
    losses = np.stack([base[:, 0], base[:, 1], base[:, 0] + 0.1 * base[:, 2], base[:, 1] + 0.1 * base[:, 2]], axis=1)
    ids = np.array([[0, 0, 1, 2]])
    classes = {"a": [[1, 0, 1, 0]], "b": [[0, 1, 0, 1]]}
    found = class_recall(losses.reshape(1, 1, 400, 1, 4), classes, ids, k=1)
    # Nearest of 0 is 2 (a), of 1 is 3 (b), of 2 is 0 (a), of 3 is 1 (b): whatever the rates, all are right.
    assert found["recall"].values.tolist() == [[1.0, 1.0]]
    assert found["predicted"].values.tolist() == [[0.5, 0.5]]


def test_recall_without_information_is_the_predicted_rate_not_the_class_rate():
    rng = np.random.default_rng(1)
    of = rng.choice(3, p=[0.1, 0.3, 0.6], size=(40, 50))
    classes = {name: of == k for k, name in enumerate("abc")}
    found = class_recall(
        rng.normal(size=(1, 2, 100, 40, 50)), classes, np.arange(2000).reshape(40, 50), permutations=30
    )
    chance = found["chance"].values
    assert chance.sum() == pytest.approx(1.0, abs=1e-3)  # a set of 30 without any class is all but impossible
    # Neighbours of different tokens overlap; their counts are as good as independent among 2000 tokens.
    spread = np.sqrt(chance * (1 - chance) / np.array([200, 600, 1200]))
    assert (np.abs(found["recall"].values[0] - chance) < 5 * spread).all()
    assert (np.abs(found["permuted"].values[0] - chance) < 5 * spread).all()
    assert np.abs(chance - found["rate"].values).max() > 0.1  # the paper's baseline is off by this much


@pytest.mark.parametrize(
    ("sizes", "tokens", "k"), [([100, 800], 1000, 30), ([20, 30, 40], 100, 5), ([5, 90], 2000, 30)]
)
def test_chance_by_drawing_sets(sizes, tokens, k):
    rng = np.random.default_rng(0)
    counts = rng.multivariate_hypergeometric([*sizes, tokens - sum(sizes)], k, size=40_000)[:, :-1]
    ratio = counts / np.array(sizes)
    answer = np.where(counts.any(axis=1), ratio.argmax(axis=1), -1)
    expected = [(answer == a).mean() for a in range(len(sizes))]
    # Four standard errors of 40,000 draws.
    np.testing.assert_allclose(chance_recall(sizes, tokens, k), expected, atol=4 * 0.5 / 200)


def test_recall_in_memory_that_does_not_grow_with_pairs(monkeypatch):
    draws = xr.DataArray(some_draws(), dims=("epoch", "chain", "draw", "sequence", "position"))
    whole = class_recall(draws, some_classes(), np.arange(12).reshape(N, J), k=3)
    monkeypatch.setattr("numerics.language.recall._ROWS_TOGETHER", 2)
    xr.testing.assert_equal(class_recall(draws, some_classes(), np.arange(12).reshape(N, J), k=3), whole)


def test_too_many_neighbours_are_refused():
    with pytest.raises(ValueError, match="only 11 tokens that differ from it, but k is 30"):
        class_recall(some_draws(), some_classes(), np.arange(12).reshape(N, J))
