"""The similarity transform against transforms that are known."""

import numpy as np
import pytest
from PIL import Image

from keras_sphereface.data.alignment import ARCFACE_112X112, SPHEREFACE_112X96, align, similarity_transform


def test_known_rotation_scale_and_shift_are_recovered(rng):
    angle, scale, shift = 0.3, 1.7, np.array([12.0, -5.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = rng.normal(size=(5, 2)) * 30
    matrix = similarity_transform(points, points @ rotation.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([rotation, shift]), atol=1e-9)


def test_least_squares(rng):
    points, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    matrix = similarity_transform(points, target)
    # The residual of a least-squares fit is orthogonal to every parameter's direction.
    residual = points @ matrix[:, :2].T + matrix[:, 2] - target
    turned = points @ np.array([[0, 1], [-1, 0]])
    for direction in (points, turned, np.tile([1.0, 0], (5, 1)), np.tile([0, 1.0], (5, 1))):
        assert abs(np.sum(residual * direction)) < 1e-9


def test_never_a_reflection(rng):
    points = rng.normal(size=(5, 2))
    assert np.linalg.det(similarity_transform(points, points * [-1, 1])[:, :2]) >= 0


def test_templates_differ_by_eight_columns():
    np.testing.assert_allclose(ARCFACE_112X112 - SPHEREFACE_112X96, np.tile([8.0, 0.0], (5, 1)))
    # As InsightFace's face_align.py has them: eyes, nose tip, mouth corners.
    x, y = [38.2946, 73.5318, 56.0252, 41.5493, 70.7299], [51.6963, 51.5014, 71.7366, 92.3655, 92.2041]
    np.testing.assert_allclose(ARCFACE_112X112, np.stack([x, y], axis=1))


def test_aligned_image_stays_as_it_is_to_the_pixel(rng):
    image = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align(image, ARCFACE_112X112), image)
    np.testing.assert_array_equal(align(image, ARCFACE_112X112, (112, 96)), image[:, 8:104])


def test_shift_and_quarter_turn_are_exact(rng):
    image = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    moved = align(image, ARCFACE_112X112 + np.array([3, -2]))
    np.testing.assert_array_equal(moved[2:, :109], image[:110, 3:])
    assert not moved[:2].any()  # outside is black
    x, y = ARCFACE_112X112.T
    turned = align(np.rot90(image, -1).copy(), np.stack([111 - y, x], axis=1))
    np.testing.assert_array_equal(turned, image)


@pytest.mark.parametrize("shrink", [2.5, 4, 7.3, 10])
def test_a_face_that_shrinks_much_is_averaged_and_stays_in_its_place(shrink):
    """A board of black and white pixels becomes grey, not a pattern; a ramp is, at each place, as bright as before."""
    side = int(112 * shrink) + 20
    rows, columns = np.indices((side, side))
    points = (ARCFACE_112X112 + 0.5) * shrink - 0.5 + (7, 5)
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    assert np.abs(align(board, points).astype(int) - 127.5).max() <= 128 / int(shrink) ** 2 + 1
    ramp = np.stack([columns, rows, np.zeros_like(rows)], axis=-1) * (255 / side)
    places = (np.arange(112) + 0.5) * shrink - 0.5
    expected = np.stack(np.broadcast_arrays(places + 7, (places + 5)[:, None], 0), axis=-1) * (255 / side)
    assert np.abs(align(np.rint(ramp).astype(np.uint8), points) - expected).max() <= 1.5


def test_only_what_shrinks_more_than_twice_is_averaged(monkeypatch, rng):
    image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    monkeypatch.setattr(Image.Image, "reduce", None)
    for shrink in (0.3, 1, 1.99, 2):
        assert align(image, (ARCFACE_112X112 + 0.5) * shrink - 0.5).std() > 10
    monkeypatch.undo()
    assert align(image[:3], ARCFACE_112X112 * 1e6).shape == (112, 112, 3)  # the face is larger than the picture


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), ARCFACE_112X112)
    for value in (0.0, 0.1, 37.7, 1e5 / 3, 4000.1):  # of the last, the mean of five is rounded
        with pytest.raises(ValueError, match="coincide"):
            similarity_transform(np.full((5, 2), [value, value / 7]), ARCFACE_112X112)
    with pytest.raises(ValueError, match="coincide"), np.errstate(over="ignore"):
        similarity_transform(ARCFACE_112X112 * 1e200, ARCFACE_112X112)  # the spread is infinite
    tiny = similarity_transform(ARCFACE_112X112 * 1e-20, ARCFACE_112X112)
    np.testing.assert_allclose(tiny, [[1e20, 0, 0], [0, 1e20, 0]], rtol=1e-9, atol=1e7)
    nowhere = np.where(np.arange(10).reshape(5, 2) == 3, np.nan, ARCFACE_112X112)
    with pytest.raises(ValueError, match=r"finite coordinates\. Received: points="):
        similarity_transform(nowhere, ARCFACE_112X112)
    with pytest.raises(ValueError, match=r"finite coordinates\. Received: template="):
        similarity_transform(ARCFACE_112X112, nowhere)
    with pytest.raises(ValueError, match="shape"):
        similarity_transform(np.ones((4, 2)), ARCFACE_112X112)
    with pytest.raises(ValueError, match=r"size=\(64, 64\)"):
        align(np.zeros((9, 9, 3), np.uint8), ARCFACE_112X112, (64, 64))
