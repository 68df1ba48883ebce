"""The tutorial of language models runs as it stands."""

import re
from pathlib import Path

import matplotlib
import numpy as np

PAGE = Path(__file__).parents[3] / "docs" / "tutorials" / "language_model.md"


def test_every_block_runs_and_says_what_it_says(monkeypatch, tmp_path):
    matplotlib.use("Agg")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks[1].strip().splitlines()) <= 25
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    folder = names["folder"]
    assert folder.is_relative_to(tmp_path)
    assert str(sorted(path.name for path in folder.glob("step*"))) in blocks[0]
    assert (folder / "figure_05.png").stat().st_size > 10_000
    assert set(names["queries"]) == set(names["asked"].classes)
    assert np.isfinite(names["influence"]["correlation"]).any()
    assert (names["pairs"]["effective_draws"] < 80).all()
    assert names["share"] > 0.9, "means over classes lie far below the noise of a pair"
    assert abs(names["limit"]["correlation"]).max() <= 1
