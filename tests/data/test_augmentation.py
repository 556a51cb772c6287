import numpy as np
import pytest

from keras_sphereface.data import augmentation as aug
from keras_sphereface.data.augmentation import Augmentation

EVERYTHING = Augmentation(crop=0.3, low_resolution=0.5, photometric=0.4, grayscale=0.2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"crop": 0.6},
        {"crop": -0.1},
        {"low_resolution": 1.5},
        {"photometric": "a"},
        {"grayscale": float("nan")},
        {"flip": 1},
    ],
)
def test_numbers_out_of_range_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Received: {name}="):
        Augmentation(**arguments)


def test_numbers_of_numpy_are_as_good_as_pythons():
    given = Augmentation(crop=np.float32(0.25), photometric=np.int64(1))
    assert given == Augmentation(crop=0.25, photometric=1.0)
    assert type(given.crop) is type(given.photometric) is float


def test_what_augment_may_be():
    assert aug.get(None) == Augmentation(flip=False)
    assert aug.get("flip") == Augmentation()
    assert aug.get(EVERYTHING) is EVERYTHING
    # What trainings that are written down as "strong" did.
    assert aug.get("strong") == Augmentation(crop=0.2, low_resolution=0.2, photometric=0.2, grayscale=0.02)
    with pytest.raises(ValueError, match=r"Received: augment='flop'"):
        aug.get("flop")


def test_draws_belong_to_positions_whatever_the_batch():
    whole = aug.draw(EVERYTHING, 5, 1000, 24)
    for first, count in ((1000, 7), (1007, 16), (1023, 1)):
        part = aug.draw(EVERYTHING, 5, first, count)
        for name in ("boxes", "low_sides", "gains", "contrasts", "saturations"):
            start = first - 1000
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start : start + count])
    assert (aug.draw(EVERYTHING, 6, 1000, 24).boxes != whole.boxes).any()


def test_draws_keep_their_ranges():
    drawn = aug.draw(EVERYTHING, 0, 0, 4000)
    top, left, bottom, right = drawn.boxes.T
    assert drawn.boxes.min() >= 0
    assert drawn.boxes.max() <= 1 + 1e-6
    np.testing.assert_allclose(bottom - top, np.abs(right - left), atol=1e-6)  # square
    assert 0.7 - 1e-6 <= (bottom - top).min() < 0.71
    assert abs((left > right).mean() - 0.5) < 0.03
    assert abs((drawn.low_sides >= 0).mean() - 0.5) < 0.03
    assert set(drawn.low_sides) == set(range(-1, len(aug.LOW_RESOLUTIONS)))
    assert abs((drawn.saturations == 0).mean() - 0.2) < 0.03
    assert 0.6 <= drawn.gains.min() < 0.61 < 1.39 < drawn.gains.max() <= 1.4


def test_flip_mirrors_half_and_nothing_else(rng):
    images = rng.integers(0, 256, (16, 6, 5, 3), np.uint8)
    drawn = aug.draw(Augmentation(), 1, 0, 16)
    flipped = drawn.boxes[:, 1] > drawn.boxes[:, 3]
    result = aug.apply(Augmentation(), drawn, images)
    np.testing.assert_array_equal(result[flipped], images[flipped][:, :, ::-1])
    np.testing.assert_array_equal(result[~flipped], images[~flipped])
    assert 0 < flipped.sum() < 16


def test_none_returns_the_images_themselves():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert aug.apply(aug.PRESETS["none"], aug.draw(aug.PRESETS["none"], 0, 0, 2), images) is images


def test_crop_of_a_ramp_is_a_ramp():
    # A box from 0.25 to 0.75 of columns 0..8 starts at column 2 and ends at 6, in nine steps of half a column.
    images = np.tile((np.arange(9) * 20).astype(np.uint8)[None, None, :, None], (1, 9, 1, 3))
    box = np.array([[0.0, 0.25, 1.0, 0.75]], np.float32)
    parameters = aug.Parameters(box, np.array([-1]), *np.ones((3, 1), np.float32))
    np.testing.assert_array_equal(
        aug.apply(Augmentation(crop=0.5), parameters, images)[0, 0, :, 0], np.arange(40, 121, 10)
    )


def test_photometric_by_hand():
    # Grey 100 and 200: gain 1.2 gives 120 and 240, mean 180; contrast 0.5 gives 150 and 210; grey has no saturation.
    images = np.array([100, 200], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=-1)
    parameters = aug.Parameters(
        np.array([[0, 0, 1, 1]], np.float32), np.array([-1]), *np.array([[1.2], [0.5], [0.3]], np.float32)
    )
    np.testing.assert_array_equal(aug.apply(Augmentation(photometric=0.5), parameters, images)[0, 0, :, 0], [150, 210])


def test_a_colour_becomes_the_grey_of_its_luma():
    # 255 red is 0.299 * 255 = 76.2, 200 green 0.587 * 200 = 117.4, 240 blue 0.114 * 240 = 27.4.
    images = np.diag(np.array([255, 200, 240], np.uint8)).reshape(1, 1, 3, 3)
    parameters = aug.Parameters(
        np.array([[0, 0, 1, 1]], np.float32), np.array([-1]), *np.array([[1], [1], [0]], np.float32)
    )
    expected = np.array([76, 117, 27]).repeat(3).reshape(1, 1, 3, 3)
    np.testing.assert_array_equal(aug.apply(Augmentation(grayscale=1.0), parameters, images), expected)


@pytest.mark.parametrize("low_side", [1, 2, 5, 8])
def test_resampling_keeps_flat_rows_and_the_mean(low_side):
    matrix = aug.resampling_matrix(8, low_side)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    if low_side == 8:
        np.testing.assert_allclose(matrix, np.eye(8), atol=1e-6)
    if low_side == 1:
        np.testing.assert_allclose(matrix, np.full((8, 8), 0.125), atol=1e-6)
    if low_side == 2:  # means of the halves at 1.5 and 5.5, straight between, flat beyond
        weights = np.array([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
        np.testing.assert_allclose(matrix @ np.repeat([0.0, 1.0], 4), weights, atol=1e-6)


@pytest.mark.parametrize("augment", [Augmentation(), Augmentation(crop=0.3), EVERYTHING, aug.PRESETS["strong"]])
def test_tensorflow_and_numpy_agree(rng, augment):
    pytest.importorskip("tensorflow")
    from keras_sphereface.data.loader import NumpyBackend, TensorFlowBackend

    images = rng.integers(0, 256, (12, 20, 16, 3), np.uint8)
    drawn = aug.draw(augment, 3, 40, 12)
    by_numpy = NumpyBackend((20, 16)).augment(augment, drawn, images)
    by_tensorflow = np.asarray(TensorFlowBackend((20, 16)).augment(augment, drawn, images))
    difference = np.abs(by_numpy.astype(int) - by_tensorflow)
    assert difference.max() <= 1  # a value at one half may round either way
    assert (difference > 0).mean() < 1e-3
    assert (by_numpy != images).any()
