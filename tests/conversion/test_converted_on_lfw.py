"""A converted network gives its known accuracy through the project's own evaluation."""

import pytest

from keras_sphereface import evaluate
from keras_sphereface.conversion import convert
from keras_sphereface.data import read_lfw

pytest.importorskip("torch", reason="conversion reads PyTorch files: pip install 'keras_sphereface[convert]'")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mobilefacenet_on_lfw_view_2(shared):
    model = convert(shared / "weights" / "mobilefacenet_xiaoccer_068.ckpt", architecture="mobilefacenet")
    pairs = read_lfw(shared / "data" / "lfw_112x112", shared / "data" / "lfw_protocol" / "pairs.txt")
    report = evaluate(model, pairs, flip="concat", crop="center", bootstrap=0)
    print(report)
    assert report.accuracy == pytest.approx(0.9890, abs=0.0005)
