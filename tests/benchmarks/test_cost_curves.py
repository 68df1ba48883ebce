"""How CPU time and peak memory grow with draws, chains, samples, width and checkpoints; run by ``make bench``.

Every size is measured in a process of its own (see cost_curves.py, which prints the same as one table). Only slopes are
asserted: from one size to the next, f times as large, time and memory grow by no more than f^power, and along the
axes that must not matter memory does not grow; with half as much again for caches and the machine's other users.
"""

from itertools import pairwise

import pytest
from benchmarks.cost_curves import CURVES, measured, powers

pytestmark = pytest.mark.slow

# MiB by which a peak may differ for no reason of ours: what the allocator keeps, garbage not collected yet, labels.
SLACK = 3


@pytest.mark.parametrize("name", CURVES)
def test_cost_curve(benchmark, name):
    curves = CURVES[name]
    benchmark.pedantic(curves.prepare(**curves.base), rounds=2)
    for axis, points in measured(name):
        sizes = curves.along(axis)
        seconds = ", ".join(f"{point.seconds:.3f}" for point in points)
        peaks = ", ".join(f"{point.mebibytes:.1f}" for point in points)
        last = powers(sizes, [point.seconds for point in points])[1]
        benchmark.extra_info[f"{axis} {', '.join(map(str, sizes))}"] = f"{seconds} CPU s, power {last:.2f}; {peaks} MiB"
        for k, (smaller, larger) in enumerate(pairwise(points)):
            growth = 1.5 * (sizes[k + 1] / sizes[k]) ** curves.powers.get(axis, 1)
            assert larger.seconds <= growth * smaller.seconds, axis
            assert larger.mebibytes <= growth * smaller.mebibytes + SLACK, axis
        if axis in curves.constant:
            assert max(point.mebibytes for point in points) <= 1.5 * points[0].mebibytes + SLACK, axis
