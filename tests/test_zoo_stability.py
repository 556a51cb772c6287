import importlib.util

import pytest
from conftest import ROOT

FOLDER = ROOT / "zoo" / "stability"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("stability_study", FOLDER / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_what_the_runs_measured(study):
    page = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in page if line.startswith("|")] == list(study.table(study.read(FOLDER / "results.jsonl")))


def test_the_tables_numbers_are_a_median_and_a_mean(study):
    measured = [(0.9, [1.0, 2.0]), (0.6, [3.0, 1.0]), (0.3, [9.0])]
    runs = [{"outcome": "learned", "accuracy": one, "gradient_norm_max": norms} for one, norms in measured]
    ends, gradient, accuracy = study.counts(runs)
    assert (ends, gradient, accuracy) == ([3, 0, 0], 3.0, pytest.approx(0.6))
    head, _, *_ = study.table([])
    assert head.count("largest gradient norm, median of the runs") == head.count("mean accuracy") == 2
