"""What is drawn is what the results hold, line by line."""

import numpy as np
import pytest
from matplotlib.image import AxesImage

from paper_figs import FIGURES
from paper_figs.every_source import distance_means
from paper_figs.style import GROUP_COLOURS, SAMPLE_COLOURS
from validation import GROUPS, group_means


def panels(figure, *titles):
    """Return the axes whose titles begin so."""
    found = []
    for title in titles:
        places = ("center", "left")
        found += [axes for axes in figure.axes if any(axes.get_title(p).startswith(title) for p in places)]
    return found


def test_figure_1_shows_mean_and_deviation_of_every_level(results, drawn, has_line):
    shown = FIGURES["1"].data(results)
    _, _, regular, singular, regular_width, singular_width = drawn("1").axes
    for name, mean, width in (("regular", regular, regular_width), ("singular", singular, singular_width)):
        for level in range(4):
            assert has_line(mean, shown["n"], shown[f"{name}_strength"][level])
            assert has_line(width, shown["n"], shown[f"{name}_deviation"][level])
            assert has_line(width, shown["n"], shown[f"{name}_bernstein_von_mises"][level])


def test_figure_2_draws_closed_form_lines_over_simulated_dots(results, drawn, has_line):
    (axes,) = panels(drawn("2"), "Strength of every mode")
    strengths = results.toy.mode_strengths
    for k in range(strengths.sizes["mode"]):
        assert has_line(axes, strengths["epoch"], strengths["closed form"][:, k])
        assert has_line(axes, strengths["epoch"][::2], strengths["simulation"][::2, k])


def test_figure_3_shows_three_measures_on_the_same_epochs(results, drawn):
    bayesian, analytic, retrained = drawn("3").axes
    assert bayesian.get_xlim() == analytic.get_xlim() == retrained.get_xlim()
    for axes, measure in (
        (bayesian, results.bayesian["influence"]),
        (analytic, results.toy.sample_weight),
        (retrained, results.retrained),
    ):
        for name, mean in group_means(measure).items():
            thick = [li for li in axes.lines if li.get_color() == GROUP_COLOURS[name] and li.get_linewidth() == 1.8]
            assert np.array_equal(thick[0].get_ydata(), mean)
        for queries in GROUPS.values():
            for query in queries:
                thin = [
                    li for li in axes.lines if li.get_color() == SAMPLE_COLOURS[query] and li.get_linewidth() == 0.5
                ]
                assert np.array_equal(thin[0].get_ydata(), measure.sel(source="dog", query=query))


def test_figure_4_draws_influence_and_branches(results, drawn, has_line):
    shown = FIGURES["4"].data(results)
    influence, *branches = drawn("4").axes[:4]
    for name, mean in group_means(results.bayesian["influence"]).items():
        assert has_line(influence, mean["epoch"], mean)
        assert int(shown["influence_peak"].sel(group=name)) == int(mean.idxmax("epoch"))
    for axes, sample, line in zip(
        branches,
        ("pine", "sparrow", "cat"),
        (
            shown["plane"].sel(sample="pine", axis=0),
            shown["animal_plane"].sel(animal="sparrow")[:, 0],
            shown["animal_plane"].sel(animal="cat")[:, 1],
        ),
        strict=True,
    ):
        assert has_line(axes, line["epoch"], line), sample


def test_dots_of_figure_4_lie_on_the_path_of_dog(results, drawn):
    shown = FIGURES["4"].data(results)
    for axes, plane in zip(drawn("4").axes[4:], (shown["plane"], shown["animal_plane"]), strict=True):
        path = plane.sel({plane.dims[1]: "dog"})
        dots = [line for line in axes.lines if line.get_color() == "black"]
        assert len(dots) == 3
        for dot, epoch in zip(dots, shown["influence_peak"].values, strict=True):
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == tuple(path.sel(epoch=epoch).values)


def test_figure_3_counts_agreeing_signs_as_a_plain_loop_does(results):
    shown = FIGURES["3"].data(results)
    first, second = (group_means(measure)["cat"].values for measure in (results.toy.sample_weight, results.retrained))
    same = clear = 0
    for x, y in zip(first, second, strict=True):
        if abs(x) > 0.02 * max(abs(first)) and abs(y) > 0.02 * max(abs(second)):
            clear += 1
            same += (x > 0) == (y > 0)
    one = shown.isel(pair=2).sel(group="cat")
    assert (str(one["first"].item()), str(one["second"].item())) == ("sample_weight", "leave_one_out")
    assert int(one["clear"]) == clear
    assert float(one["share"]) == pytest.approx(same / clear, abs=1e-15)
    assert same < clear, "they disagree somewhere, and the caption says so"
    assert f"on cat, (b) and (c) {same / clear:.0%} of {clear} (opposite at epoch" in FIGURES["3"].caption(results)


def test_figure_6_shows_the_longest_chains_of_every_setting(results, drawn):
    shown = results.sweeps
    maps = [axes for axes in drawn("6").axes if axes.get_title().startswith("n_beta")]
    for axes, n_beta in zip(maps, shown["n_beta"].values, strict=True):
        (image,) = axes.findobj(AxesImage)
        expected = (
            shown["correlation"].sel(n_beta=n_beta).isel(chains=-1, draws=-1).transpose("localization", "step_size")
        )
        np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), expected)


@pytest.mark.parametrize(
    ("identifier", "measure"),
    [
        ("7", lambda r: r.bayesian["influence"]),
        ("8", lambda r: r.retrained),
        ("12", lambda r: r.toy.sample_weight),
    ],
)
def test_every_source_has_a_panel_with_all_its_queries(results, drawn, has_line, identifier, measure):
    influence = measure(results)
    for source in influence["source"].values:
        (axes,) = panels(drawn(identifier), f"influence of {source}")
        for query in influence["query"].values:
            line = influence.sel(source=source, query=query)
            assert has_line(axes, line["epoch"], line) == (query != source)


def test_means_at_a_distance_are_those_of_the_tree(results):
    influence = results.retrained
    means = distance_means(influence)
    for distance, queries in ((3, GROUPS["plants"]), (2, GROUPS["birds"]), (1, GROUPS["cat"])):
        expected = influence.sel(source="dog", query=list(queries)).mean("query")
        # A sum of eight products of order one: a few eps.
        np.testing.assert_allclose(means.sel(source="dog", distance=distance), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("identifier", "name"), [("9", "hessian"), ("10", "gauss_newton")])
def test_every_damping_constant_has_a_panel(results, drawn, has_line, identifier, name):
    curvature = getattr(results, name)
    for constant in curvature["damping"].values:
        (axes,) = [a for a in drawn(identifier).axes if a.get_title() == f"damping c = {constant:g}"]
        line = curvature["influence"].sel(damping=constant, source="dog", query="cat")
        assert has_line(axes, line["epoch"], line)
    (axes,) = panels(drawn(identifier), "eigenvalues")
    assert has_line(axes, curvature["epoch"], curvature["max_abs_eigenvalue"])
    assert has_line(axes, curvature["epoch"], curvature["min_eigenvalue"])


def test_figure_11_draws_the_closed_form_over_retraining(results, drawn, has_line):
    for axes, query in zip(drawn("11").axes, ("cat", "sparrow"), strict=True):
        dots = results.briefly_ablated.sel(source="dog", query=query)
        line = results.brief_ablation_of_dog.sel(source="dog", query=query)
        assert has_line(axes, dots["epoch"], dots)
        assert has_line(axes, line["epoch"], line)
        assert np.isin(dots["epoch"], line["epoch"]).all()
        marks = {
            line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0])
            for line in axes.lines
            if line.get_marker() in ("^", "v")
        }
        lowest, highest = int(np.argmin(line.values)), int(np.argmax(line.values))
        assert marks["^"] == (line["epoch"][lowest], line[lowest])
        assert marks["v"] == (line["epoch"][highest], line[highest])


def test_figure_a_splits_the_influence(results, drawn, has_line):
    shown = FIGURES["a"].data(results)
    for query in ("2", "6", "4"):
        (axes,) = panels(drawn("a"), f"1 on {query}")
        for part in ("within", "between", "total"):
            assert has_line(axes, shown["n"], shown[part].sel(source="1", query=query))


def test_figure_e1_draws_the_printed_and_the_exact_response(results, drawn, has_line):
    shown = FIGURES["e1"].data(results)
    deviation, *influences = drawn("e1").axes
    for formula in ("paper-P1", "paper-P2"):
        assert has_line(deviation, shown["epoch"], shown["relative_deviation"].sel(formula=formula))
        for axes, query in zip(influences, ("pine", "sparrow", "cat"), strict=True):
            printed = results.toy.closed_form(formula).sel(source="dog", query=query)
            assert has_line(axes, printed["epoch"], printed)
            truth = results.retrained_derivative.sel(source="dog", query=query)[::2]
            assert has_line(axes, truth["epoch"], truth)


def test_figure_e2_draws_finite_changes_down_to_leave_one_out(results, drawn, has_line):
    for axes, query in zip(drawn("e2").axes, ("cat", "sparrow"), strict=False):
        for response in (results.reweighted(-0.1), results.reweighted(-0.5), results.retrained):
            line = response.sel(source="dog", query=query)
            assert has_line(axes, line["epoch"], line)


def test_figure_e3_draws_the_maps_below_the_diagonal_only(results, drawn):
    shown = FIGURES["e3"].data(results).sel(query="cat")
    mesh = drawn("e3").axes[0].collections[0].get_array()
    closed = shown["closed_form"].transpose("epoch", "exposure")
    closed = closed.where((closed["epoch"] <= 8000) & (closed["exposure"] <= 8000), drop=True)
    seen = (closed["epoch"] > closed["exposure"]).values
    assert np.array_equal(~np.ma.getmaskarray(mesh).reshape(seen.shape), seen)
    np.testing.assert_array_equal(np.ma.getdata(mesh).reshape(seen.shape)[seen], closed.values[seen])


def test_figure_e4_draws_the_limit_and_what_was_measured(results, drawn, has_line):
    shown = FIGURES["e4"].data(results)
    quadratic, toy = drawn("e4").axes
    assert has_line(quadratic, shown["fine_stability"], shown["fine_limit"])
    for decay in shown["decay"].values:
        assert has_line(quadratic, shown["stability"], shown["algorithm_1"].sel(decay=decay))
    # moved aside by four per cent, so that points that coincide are seen
    assert has_line(toy, 1.04 * shown["stability"], shown["toy_frozen"])


def test_figure_e5_draws_every_case_twice(results, drawn):
    shown = FIGURES["e5"].data(results)
    scatter, difference = drawn("e5").axes
    points = {(x, y) for line in scatter.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert {(float(x), float(y)) for x, y in zip(shown["exact"], shown["extrapolated"], strict=True)} <= points
    relative = {float(x) for line in difference.lines for x in np.atleast_1d(line.get_xdata())}
    assert {float(x) for x in shown["extrapolated"] / shown["exact"] - 1} <= relative


def test_figure_e6_writes_every_number(results, drawn):
    table = FIGURES["e6"].data(results)["correlation"]
    (axes,) = drawn("e6").axes
    np.testing.assert_array_equal(axes.findobj(AxesImage)[0].get_array(), table)
    written = {tuple(t.get_position()): t.get_text() for t in axes.texts}
    for i, j in np.ndindex(*table.shape):
        assert abs(float(written[(j, i)]) - float(table[i, j])) <= 0.005 + 1e-12


def test_figure_l1_draws_the_limit_as_lines_and_chains_as_dots(results, drawn, has_line):
    shown = FIGURES["l1"].data(results)
    for axes, name in zip(
        panels(drawn("l1"), "mean covariance", "mean correlation"), ("covariance", "correlation"), strict=True
    ):
        for pair in shown["pair"].values:
            assert has_line(axes, shown["step"], shown[f"{name}_limit"].sel(pair=pair))
            assert has_line(axes, shown["epoch"], shown[name].sel(pair=pair))
    (noise,) = panels(drawn("l1"), "noise of a pair")
    for step_size in np.unique(shown["step_size"]):
        part = shown.isel(length=np.flatnonzero(shown["step_size"].values == step_size))
        assert has_line(noise, part["relaxation_times"], part["noise"])
        assert has_line(noise, part["relaxation_times"], part["unrelated"])
    # Chains at initial weights, of a model that has hardly learned, hold no more than the localization knows.
    assert float((shown["noise"] / shown["unrelated"]).max()) < 1.2
