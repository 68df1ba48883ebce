"""The cases of learning coefficients, and how close they come with short chains."""

import numpy as np
import pytest

from theory import learning_coefficient
from validation.experiments.learning_coefficients import CoefficientSettings, measured_coefficients


def test_the_cases_of_learning_coefficients_vary_in_width_rank_and_multiplicity():
    cases = CoefficientSettings().cases
    exact = {learning_coefficient(*case) for case in cases}
    assert len(cases) >= 6
    assert len(exact) == len(cases), "each has its own value"
    assert {m for _, m in exact} == {1, 2}
    ranks = {}
    for widths, rank in cases:
        ranks.setdefault(widths, set()).add(rank)
    assert max(len(seen) for seen in ranks.values()) >= 3, "rank dependence is seen at one width"


@pytest.mark.filterwarnings("ignore::numerics.errors.UntrustedResultWarning")  # short chains are enough for labels
def test_a_case_has_its_exact_value_and_labels():
    """At n_beta = 5 and 10 the estimate is of the right size only; extrapolation needs colder chains."""
    settings = CoefficientSettings(cases=(((2, 2, 2), 1),), n_betas=(5.0, 10.0), lengths=(1.0, 1.0), chains=4)
    seen = []
    found = measured_coefficients(settings, progress=seen.append)
    assert seen == [1]
    assert found["case"].values.tolist() == ["2-2-2, rank 1"]
    assert float(found["exact"][0]) == 2.0
    assert int(found["multiplicity"][0]) == 2
    assert found["estimate"].dims == ("case", "n_beta")
    assert (np.abs(found["estimate"] - 2) < 1).all()
    assert (found["standard_error"] > 0).all()
