"""Sweeps: the same numbers whatever the executor, nothing lost when interrupted, refusals in sentences."""

import multiprocessing
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import xarray as xr

import numerics.fleets.sweep_task
from numerics import (
    MALA,
    SGLD,
    Checkpoints,
    DamagedResultWarning,
    LearningCoefficientError,
    LeaveOneOutCorrelation,
    RMSPropSGLD,
    SweepGrid,
    SweepMeasure,
    TorchModel,
    TrainingConfig,
    WorkerLost,
    bayesian_influence,
    estimate_learning_coefficient,
    leave_one_out,
    linear_as_module,
    sweep,
    train,
)
from numerics.executors import run_tasks
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.stores import ResultStore
from theory import hierarchical_dataset

DATA = hierarchical_dataset(levels=2)
CONFIG = TrainingConfig(hidden=5, sigma=0.05, epochs=900, checkpoint_every=300, lr=0.1)
RUN = train(DATA, CONFIG).checkpoints
LOO = leave_one_out(DATA, CONFIG)
MEASURE = LeaveOneOutCorrelation(LOO)
# The step 1 is outside the stable range at any checkpoint.
GRID = SweepGrid(
    step_size=[1e-4, 1.0], n_beta=[20.0, 50.0], localization=[500.0], stability=[0.5], chains=[1, 3], draws=[10, 25]
)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def reference():
    """Return the sweep over GRID in this process."""
    with ThreadPoolExecutor(1) as pool:
        return sweep(DATA, RUN, GRID, measure=MEASURE, executor=pool)


def check_same(found, expected):
    xr.testing.assert_identical(found, expected)  # every bit, every label, every attribute


# --- the grid -------------------------------------------------------------------------------------------------------


def test_the_grid_is_the_product_of_its_axes():
    grid = SweepGrid([1e-4, 1e-3], [10, 100, 1000], np.array([5.0]), decay=[0.8, 0.9], chains=[2, 4], draws=[100])
    assert grid.size == 2 * 3 * 1 * 2 * 2 * 1
    samplers = grid.samplers(RMSPropSGLD(stability=0.3, preconditioner="tempered"))
    expected = [
        RMSPropSGLD(step, n_beta, 5.0, decay, 0.3, "tempered")
        for step in (1e-4, 1e-3)
        for n_beta in (10.0, 100.0, 1000.0)
        for decay in (0.8, 0.9)
    ]
    assert samplers == expected


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_beta": []}, "n_beta holds no value, so the grid is empty; give at least one"),
        ({"draws": []}, "draws holds no value"),
        ({"decay": []}, "decay holds no value"),
        ({"step_size": [1e-3, 1e-3]}, "values of step_size must be distinct, but 0.001 stands twice"),
        ({"chains": [0]}, "chains must be at least 1, but 0"),
        ({"step_size": [np.nan]}, "step_size holds a non-finite value"),
    ],
)
def test_bad_grids_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        SweepGrid(**{"step_size": [1e-4], "n_beta": [10.0], "localization": [5.0]} | change)


def test_fractions_of_draws_are_refused():
    with pytest.raises(TypeError, match="draws"):
        SweepGrid([1e-4], [10.0], [5.0], draws=[10.5])


@pytest.mark.parametrize(
    ("grid", "sampler", "match"),
    [
        ({"decay": [0.9]}, SGLD(), "SGLD has no decay; leave it out of the grid"),
        ({"decay": [0.9, 1.0]}, None, r"decay must be in \[0, 1\), but 1.0"),
        ({"n_beta": [10.0, -1.0]}, None, "n_beta must be a positive number, but -1.0"),
    ],
)
def test_values_that_the_sampler_refuses_are_refused_before_any_work(grid, sampler, match, threads):
    settings = SweepGrid(**{"step_size": [1e-4], "n_beta": [10.0], "localization": [500.0]} | grid)
    with pytest.raises(ValueError, match=match):
        sweep(DATA, RUN, settings, measure=MEASURE, sampler=sampler, executor=threads)


# --- what is measured -----------------------------------------------------------------------------------------------


def test_correlations_are_those_of_bayesian_influence_setting_by_setting(reference):
    """Influence from the library's stream, correlations from numpy."""
    different = ~np.eye(4, dtype=bool)
    loo = LOO.values
    for n_beta in (20.0, 50.0):
        for chains in (1, 3):
            for draws in (10, 25):
                sampler = RMSPropSGLD(1e-4, n_beta, 500.0, stability=0.5)
                influence = bayesian_influence(DATA, RUN, sampler, chains=chains, draws=draws)["influence"].values
                place = {"step_size": 1e-4, "n_beta": n_beta, "chains": chains, "draws": draws}
                found = reference.sel(**place).squeeze()
                # The same draws; sums of at most 300 terms in float64 differ by rounding.
                overall = np.corrcoef(influence[:, different].ravel(), loo[:, different].ravel())[0, 1]
                assert float(found["correlation"]) == pytest.approx(overall, rel=1e-9)
                for i in range(4):
                    for j in range(4):
                        one = np.corrcoef(influence[:, i, j], loo[:, i, j])[0, 1]
                        assert float(found["pair_correlation"][i, j]) == pytest.approx(one, rel=1e-8)
    assert reference["correlation"].dims == ("step_size", "n_beta", "localization", "stability", "chains", "draws")
    assert reference.attrs["decay"] == 0.9
    assert reference.attrs["measure"] == "LeaveOneOutCorrelation"
    assert "n_beta" not in reference.attrs


def test_sources_and_queries_of_the_reference_are_found_by_name(threads, reference):
    """Another order, and only some of them."""
    names = DATA.names
    part = LOO.sel(source=[names[2], names[0]], query=[names[1], names[0]]).transpose("query", "epoch", "source")
    found = sweep(DATA, RUN, GRID, measure=LeaveOneOutCorrelation(part), executor=threads)
    expected = reference["pair_correlation"].sel(source=[names[2], names[0]], query=[names[1], names[0]])
    xr.testing.assert_identical(found["pair_correlation"].drop_attrs(), expected.drop_attrs())


def test_unstable_settings_are_nan_with_the_reason(reference):
    refused = reference.sel(step_size=1.0)
    assert refused["correlation"].isnull().all()
    assert refused["pair_correlation"].isnull().all()
    sentences = {str(reason) for reason in refused["reason"].values.ravel()}
    assert all("step_size 1 is outside the stable range" in sentence for sentence in sentences)
    sampled = reference.sel(step_size=1e-4)
    assert (sampled["reason"] == "").all()
    assert sampled["correlation"].notnull().all()


def test_a_divergence_spoils_the_settings_that_contain_it_and_no_other(threads):
    """Locally stable at the saddle, but the noise carries the quartic loss where the step is not.

    Whether chains of so many draws diverge is asked of `bayesian_influence` for each size alone.
    """
    data = hierarchical_dataset()
    zero = Checkpoints(np.array([400.0, 500.0]), torch.zeros(2, 50, 8), torch.zeros(2, 15, 50))
    loo = xr.DataArray(
        np.random.default_rng(0).normal(size=(2, 8, 8)),
        coords={"epoch": zero.epochs, "source": list(data.names), "query": list(data.names)},
    )
    grid = SweepGrid([2.0], [2.0], [0.1], chains=[1, 2, 4], draws=[4, 8, 16, 200])
    measure = LeaveOneOutCorrelation(loo)
    found = sweep(data, zero, grid, measure=measure, sampler=SGLD(), executor=threads).squeeze()
    ends = []
    for chains in grid.chains:
        for draws in grid.draws:
            here = found.sel(chains=chains, draws=draws)
            reason = str(here["reason"].item())
            try:
                bayesian_influence(data, zero, SGLD(2.0, 2.0, 0.1), chains=chains, draws=draws)
            except ArithmeticError:
                assert "diverged: its loss at draw" in reason
                assert np.isnan(here["correlation"])
            else:
                assert reason == ""
                assert np.isfinite(here["correlation"])
            ends.append(reason == "")
    assert any(ends)
    assert not all(ends)


@pytest.mark.parametrize("together", [2, 3, 4])
def test_settings_in_one_batch_give_the_same_bits(threads, reference, together):
    check_same(sweep(DATA, RUN, GRID, measure=MEASURE, together=together, executor=threads), reference)


def test_settings_that_diverge_leave_their_batch(threads):
    """The saddle again: of three steps in one batch one is safe, one diverges late and one is refused."""
    data = hierarchical_dataset()
    zero = Checkpoints(np.array([400.0]), torch.zeros(1, 50, 8), torch.zeros(1, 15, 50))
    grid = SweepGrid([0.01, 2.0, 100.0], [2.0, 3.0], [0.1], chains=[1, 2], draws=[4, 200])
    settings = {"sampler": SGLD(), "measure": LearningCoefficientError(60.0), "executor": threads}
    alone = sweep(data, zero, grid, **settings)
    reasons = alone["reason"].sel(chains=2, draws=200, n_beta=2.0).squeeze().values
    assert [sentence[:5] for sentence in reasons] == ["", "chain", "step_"]
    check_same(sweep(data, zero, grid, together=6, **settings), alone)


@pytest.mark.filterwarnings(
    "ignore::numerics.errors.UntrustedResultWarning"
)  # chains of 60 draws: only sameness counts
def test_learning_coefficients_are_those_of_the_estimate(threads):
    """With the sampler's own axes: no decay, no stability."""
    last = RUN.at([600.0, 900.0])
    grid = SweepGrid([1e-4], [20.0, 50.0], [500.0], chains=[2], draws=[20, 60])
    measure = LearningCoefficientError(exact=14.0)
    found = sweep(DATA, last, grid, measure=measure, sampler=MALA(), burn_in=30, thin=2, seed=3, executor=threads)
    assert found["learning_coefficient"].dims == (
        *("step_size", "n_beta", "localization", "chains", "draws"),
        "epoch",
    )
    for n_beta in (20.0, 50.0):
        settings = {"chains": 2, "burn_in": 30, "thin": 2, "seed": 3}
        alone = estimate_learning_coefficient(DATA, last, MALA(1e-4, n_beta, 500.0), draws=60, **settings)
        here = found.sel(n_beta=n_beta, draws=60).squeeze()
        for name in ("learning_coefficient", "standard_error", "r_hat"):
            np.testing.assert_allclose(here[name], alone[name], rtol=1e-9)
        np.testing.assert_allclose(here["relative_error"], alone["learning_coefficient"] / 14 - 1, rtol=1e-9)


def test_modules_can_be_swept(threads):
    grid = SweepGrid([1e-4], [50.0], [500.0], chains=[2], draws=[15])
    settings = {"measure": MEASURE, "sampler": SGLD(), "dtype": torch.float64, "executor": threads}
    linear, module = (sweep(DATA, weights, grid, **settings) for weights in (RUN, linear_as_module(RUN)))
    np.testing.assert_allclose(module["correlation"], linear["correlation"], rtol=1e-8)


@dataclass(frozen=True, eq=False)
class MeanLoss(SweepMeasure):
    """A measure of one's own."""

    def check(self, dataset, checkpoints, grid):
        pass

    def blank(self, dataset, checkpoints):
        return xr.Dataset({"mean": np.nan})

    def evaluate(self, losses, sampler, dataset, checkpoints):
        if sampler.n_beta > 1000:
            raise ValueError("what a measure refuses is not taken for an unstable step")
        return xr.Dataset({"mean": float(losses.mean())})


def test_a_measure_of_ones_own(threads):
    grid = SweepGrid([1e-4], [20.0], [500.0], chains=[1], draws=[1, 5])
    found = sweep(DATA, RUN, grid, measure=MeanLoss(), executor=threads)
    assert found["mean"].shape == (1, 1, 1, 1, 2)
    beyond = replace(grid, n_beta=[2000.0])
    with pytest.raises(ValueError, match="what a measure refuses"):
        sweep(DATA, RUN, beyond, measure=MeanLoss(), executor=threads)


@pytest.mark.parametrize(
    ("measure", "grid", "checkpoints", "match"),
    [
        (LeaveOneOutCorrelation(LOO.isel(epoch=slice(2))), {}, RUN, "has no epoch 600, at which there is a checkpoint"),
        (LeaveOneOutCorrelation(LOO.mean("query")), {}, RUN, "but epoch, source and query are needed"),
        (
            LeaveOneOutCorrelation(LOO.assign_coords(source=["a", "b", "c", "d"])),
            {},
            RUN,
            "source 'a' is not in the data set",
        ),
        (LeaveOneOutCorrelation(LOO.where(LOO > 0)), {}, RUN, "holds a value that is not finite"),
        (MEASURE, {}, RUN.at([900.0]), "needs at least 2 checkpoints"),
        (MEASURE, {"chains": [1], "draws": [1, 5]}, RUN, "a covariance needs at least 2 draws"),
        (LearningCoefficientError(1.0), {"draws": [3, 10]}, RUN, "needs at least 4 draws"),
    ],
)
def test_what_a_measure_cannot_judge_is_refused(measure, grid, checkpoints, match, threads):
    settings = SweepGrid(**{"step_size": [1e-4], "n_beta": [20.0], "localization": [500.0]} | grid)
    with pytest.raises(ValueError, match=match):
        sweep(DATA, checkpoints, settings, measure=measure, executor=threads)


def test_other_bad_arguments_are_refused(threads):
    for unknown in ("correlation", LeaveOneOutCorrelation):
        with pytest.raises(TypeError, match="measure"):
            sweep(DATA, RUN, GRID, measure=unknown, executor=threads)
    with pytest.raises(ValueError, match="exact must be a positive number"):
        LearningCoefficientError(exact=-1.0)
    with pytest.raises(ValueError, match="burn_in must be at least 0"):
        sweep(DATA, RUN, GRID, measure=MEASURE, burn_in=-1, executor=threads)
    with pytest.raises(ValueError, match="together must be at least 1, but 0"):
        sweep(DATA, RUN, GRID, measure=MEASURE, together=0, executor=threads)
    with pytest.raises(ValueError, match="the network maps 4 inputs"):
        sweep(hierarchical_dataset(), RUN, GRID, measure=MEASURE, executor=threads)


def test_what_cannot_be_sent_to_processes_is_refused_in_a_sentence(threads):
    local = TorchModel(torch.nn.Linear(4, 7, bias=False), lambda outputs, targets: (outputs - targets).square().sum(1))
    weights = ModuleCheckpoints(RUN.epochs, local, torch.zeros(4, 28, dtype=torch.float64))
    grid = SweepGrid([1e-4], [20.0], [500.0], chains=[1], draws=[3])
    with pytest.raises(TypeError, match=r"cannot be sent to worker processes: .* give executor=ThreadPoolExecutor"):
        sweep(DATA, weights, grid, measure=MEASURE)
    assert sweep(DATA, weights, grid, measure=MEASURE, executor=threads)["correlation"].notnull().all()


# --- executors ------------------------------------------------------------------------------------------------------


def test_processes_give_the_same_bits_and_report_progress(reference):
    """The default: fresh processes, to which this test module must not matter."""
    done = []
    check_same(sweep(DATA, RUN, GRID, measure=MEASURE, progress=done.append), reference)
    assert sum(done) == GRID.size == 16


def test_a_dask_cluster_gives_the_same_bits(reference):
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cluster's own start and end
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client:
            found = sweep(DATA, RUN, GRID, measure=MEASURE, executor=client.get_executor())
    check_same(found, reference)


def test_tasks_that_ran_are_handed_over_when_one_fails(threads):
    """The first failure stops what waits, not what runs, and goes to the caller."""
    done = {}
    with pytest.raises(ZeroDivisionError):
        run_tasks(lambda x: 1 / x, [1.0, 2.0, 0.0], done.__setitem__, threads)
    assert done[0] == 1.0
    assert done[1] == 0.5


# --- the store ------------------------------------------------------------------------------------------------------


def count_samplings(monkeypatch):
    """Return a list that grows by each call to `sample` of a setting."""
    calls = []
    original = numerics.fleets.sweep_task.sample

    def counted(*args, **kwargs):
        calls.append(args[2])
        return original(*args, **kwargs)

    monkeypatch.setattr(numerics.fleets.sweep_task, "sample", counted)
    return calls


def test_a_stored_sweep_is_read_and_not_sampled_again(tmp_path, threads, reference, monkeypatch):
    calls = count_samplings(monkeypatch)
    settings = {"measure": MEASURE, "executor": threads, "store": tmp_path / "new" / "sweep"}
    check_same(sweep(DATA, RUN, GRID, **settings), reference)
    assert len(calls) == 4
    done = []
    check_same(sweep(DATA, RUN, GRID, progress=done.append, **settings), reference)
    assert len(calls) == 4
    assert sum(done) == GRID.size


def test_a_grown_grid_is_finished_from_the_store(tmp_path, threads, monkeypatch):
    calls = count_samplings(monkeypatch)
    settings = {"measure": MEASURE, "executor": threads, "store": tmp_path}
    sweep(DATA, RUN, GRID, **settings)
    larger = replace(GRID, n_beta=[20.0, 30.0, 50.0])
    found = sweep(DATA, RUN, larger, **settings)
    assert [s.n_beta for s in calls[4:]] == [30.0, 30.0]
    check_same(found, sweep(DATA, RUN, larger, measure=MEASURE, executor=threads))


def test_ctrl_c_loses_nothing_and_a_rerun_continues(tmp_path, threads, reference, monkeypatch, request):
    """SIGINT arrives when the first setting has been reported; whatever else was running is kept as well."""
    # A shell that starts the tests in the background lets them ignore the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    calls = count_samplings(monkeypatch)
    settings = {"measure": MEASURE, "executor": threads, "store": tmp_path}
    signals = iter([signal.SIGINT])

    def interrupt_once(_):
        for number in signals:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        sweep(DATA, RUN, GRID, progress=interrupt_once, **settings)
    kept = len(list(tmp_path.glob("*.json"))) - 1  # the header
    assert 1 <= len(calls) == kept <= 4
    check_same(sweep(DATA, RUN, GRID, **settings), reference)
    assert len(calls) == 4


def test_a_killed_worker_loses_nothing_and_a_rerun_continues(tmp_path, threads, monkeypatch):
    settings = {"measure": MEASURE, "store": tmp_path}

    def kill_a_worker(_):
        for worker in multiprocessing.active_children()[:1]:
            os.kill(worker.pid, signal.SIGKILL)

    grid = replace(GRID, n_beta=np.arange(20.0, 28.0), chains=[3], draws=[300])
    with pytest.raises(WorkerLost, match="a worker process died, killed or out of memory"):
        sweep(DATA, RUN, grid, progress=kill_a_worker, **settings)
    kept = len(list(tmp_path.glob("*.json"))) - 1  # the header
    assert 1 <= kept < 16
    calls = count_samplings(monkeypatch)
    check_same(
        sweep(DATA, RUN, grid, executor=threads, **settings), sweep(DATA, RUN, grid, measure=MEASURE, executor=threads)
    )
    assert len(calls) == 16 - kept + 16


@pytest.mark.parametrize("harm", ["cut", "flip", "binary", "empty"])
def test_a_damaged_result_is_computed_again_with_a_note(tmp_path, threads, reference, harm):
    settings = {"measure": MEASURE, "executor": threads, "store": tmp_path}
    sweep(DATA, RUN, GRID, **settings)
    victim = max(tmp_path.glob("*.json"), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    at = content.index(b"correlation")
    harmed = {
        "cut": content[: len(content) // 2],
        "flip": content[:at] + b"C" + content[at + 1 :],
        "binary": b"\xff\xfe\n" + content,
        "empty": b"",
    }
    victim.write_bytes(harmed[harm])
    with pytest.warns(DamagedResultWarning, match=r"is damaged .*; its setting is computed again"):
        check_same(sweep(DATA, RUN, GRID, **settings), reference)
    check_same(sweep(DATA, RUN, GRID, **settings), reference)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 1}, "seed is not"),
        ({"burn_in": 2}, "burn_in is not"),
        ({"dtype": torch.float64}, "dtype is not"),
        ({"measure": LeaveOneOutCorrelation(LOO + 1)}, "measure is not"),
        ({"sampler": RMSPropSGLD(decay=0.8)}, "sampler is not"),
        ({"seed": 1, "thin": 2}, "thin, seed are not"),
    ],
)
def test_a_store_of_another_configuration_is_refused(tmp_path, threads, change, what):
    grid = SweepGrid([1e-4], [20.0], [500.0], chains=[1], draws=[3])
    settings = {"measure": MEASURE, "executor": threads, "store": tmp_path}
    sweep(DATA, RUN, grid, **settings)
    with pytest.raises(numerics.StoreMismatch, match=f"belongs to another sweep: its {what} the same"):
        sweep(DATA, RUN, grid, **settings | change)


def test_a_store_of_other_data_or_checkpoints_is_refused(tmp_path, threads):
    grid = SweepGrid([1e-4], [20.0], [500.0], chains=[1], draws=[3])
    settings = {"measure": MeanLoss(), "executor": threads, "store": tmp_path}
    sweep(DATA, RUN, grid, **settings)
    with pytest.raises(ValueError, match="its checkpoints is not the same"):
        sweep(DATA, RUN.at([300.0]), grid, **settings)
    with pytest.raises(ValueError, match="its data set is not the same"):
        sweep(DATA.without(DATA.names[0]), RUN, grid, **settings)


def test_folders_that_are_no_store_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        ResultStore(file, {}, "sweep")
    with pytest.raises(ValueError, match="holds something else than a sweep"):
        ResultStore(tmp_path, {}, "sweep")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep.json cannot be read: .* Delete"):
        ResultStore(tmp_path, {}, "sweep")
