"""Influence of when a sample is seen: its sums are known, and its numbers do not depend on what else is asked for."""

import numpy as np
import pytest

from validation.experiments.exposure import exposure_influence


@pytest.fixture(scope="module")
def of_dog(toy):
    return exposure_influence(toy, sources=["dog"])


def test_exposures_sum_to_the_derivative_of_retraining(toy, of_dog):
    """The central difference of retraining at 1e-3 is off by 1e-6 of a third derivative that is 10 times the first."""
    truth = toy.retrained_derivative.sel(source=["dog"])
    found = 250 * of_dog["unrolled"].sum("exposure")
    np.testing.assert_allclose(found.transpose(*truth.dims), truth, rtol=0, atol=1e-5 * float(np.abs(truth).max()))
    assert of_dog["exposure"].values[:2].tolist() == [124.5, 374.5]


def test_the_closed_kernel_averages_over_its_stretches(toy, of_dog):
    """Its sum over stretches is the sample-weight influence, up to quadrature: 4 nodes on a tenth of a rise."""
    whole = toy.sample_weight.sel(source="dog")
    found = 250 * of_dog["closed_form"].sel(source="dog").sum("exposure")
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6 * np.abs(whole).max())


def test_later_exposure_has_no_influence(of_dog):
    for kernel in of_dog.values():
        assert not kernel.where(kernel["exposure"] > kernel["epoch"], 0).any()


def test_a_part_has_the_numbers_of_the_whole(toy, of_dog):
    """Few epochs and every source, as a claim asks for them: the same descent, so equal but for the order of sums."""
    part = exposure_influence(toy, until=3000, every=1500)
    assert part.sizes == {"source": 8, "exposure": 12, "epoch": 3, "query": 8}
    chosen = {"exposure": part["exposure"], "epoch": part["epoch"], "source": ["dog"]}
    for name in ("unrolled", "closed_form"):
        size = float(np.abs(of_dog[name]).max())
        np.testing.assert_allclose(part[name].sel(source=["dog"]), of_dog[name].sel(chosen), atol=1e-12 * size)
