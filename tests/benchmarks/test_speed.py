"""Speed of the public functions at the paper's size, in CPU time on one core; run by ``make bench``.

Absolute times depend on the machine. What is asserted are ratios of two measurements in the same run.
"""

import time

import numpy as np
import pytest
import torch

from numerics import (
    RMSPropSGLD,
    bayesian_influence,
    gauss_newton_influence,
    gradient_flow,
    hessian_influence,
    initial_weights,
    leave_one_out,
    train,
)
from theory import (
    aligned_modes,
    hierarchical_dataset,
    influence_trajectory,
    leave_one_out_trajectory,
    linear_network_solution,
)

DATA = hierarchical_dataset()
TAU = 1200.0
EPOCHS = np.linspace(0, 10_000, 1001)
DAMPING = [1e-3, 1e-2, 1e-1, 1.0, 10.0]


@pytest.fixture(scope="module")
def checkpoints():
    return train(DATA).checkpoints


def cpu_seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


@pytest.mark.parametrize("formula", ["paper-P1", "paper-P2", "spectral", "fixed-init", "sample-weight"])
def test_closed_form_of_all_pairs_at_1001_epochs(benchmark, formula):
    benchmark(lambda: influence_trajectory(DATA, EPOCHS, tau=TAU, g0=2.5e-5, formula=formula))


def test_closed_form_leave_one_out(benchmark):
    w1, w2 = (w.numpy() for w in initial_weights(DATA))
    benchmark(lambda: leave_one_out_trajectory(DATA, EPOCHS, tau=TAU, w1=w1, w2=w2))


def test_matrix_solution_against_the_integrated_flow(benchmark):
    w1, w2 = (w.numpy() for w in initial_weights(DATA))
    aligned_modes(w1, w2, DATA.syx)
    solve = lambda: linear_network_solution(w1, w2, DATA.syx, EPOCHS, TAU)  # noqa: E731
    flow = lambda: gradient_flow(DATA, w1, w2, EPOCHS, tau=TAU, tolerance=1e-9)  # noqa: E731
    benchmark(solve)
    # Same times, accuracy 1e-9: the closed form must win.
    ratio = min(cpu_seconds(solve) for _ in range(5)) / min(cpu_seconds(flow) for _ in range(5))
    benchmark.extra_info["ratio to DOP853"] = ratio
    assert ratio < 1


def test_training_and_leave_one_out(benchmark):
    benchmark.pedantic(lambda: leave_one_out(DATA), rounds=3)


def test_bayesian_influence_of_figure_3(benchmark, checkpoints):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sampler = RMSPropSGLD(step_size=1e-4, n_beta=1e3, localization=5e3)
    run = lambda: bayesian_influence(DATA, checkpoints, sampler, chains=4, draws=1000, workers=1)  # noqa: E731
    noise = torch.empty(64, 1150)

    def normals():
        for _ in range(404 * 1000 // 64):
            noise.normal_()

    drawn = [cpu_seconds(normals)]
    used = cpu_seconds(run)
    drawn.append(cpu_seconds(normals))
    torch.set_num_threads(threads)
    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["draws per CPU-second"] = 404_000 / used
    benchmark.extra_info["ratio to drawing the normals alone"] = used / np.mean(drawn)
    assert used / np.mean(drawn) < 4


def test_hessian_influence_of_101_checkpoints(benchmark, checkpoints):
    benchmark.pedantic(lambda: hessian_influence(DATA, checkpoints, relative_damping=DAMPING), rounds=2)


def test_gauss_newton_influence_of_101_checkpoints(benchmark, checkpoints):
    benchmark.pedantic(lambda: gauss_newton_influence(DATA, checkpoints, relative_damping=DAMPING), rounds=3)
