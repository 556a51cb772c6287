"""Template pooling with sums done by hand."""

import numpy as np
import pytest

from keras_sphereface.evaluation.templates import image_weights, template_embeddings


def unit(*vector):
    return np.array(vector) / np.linalg.norm(vector)


def test_mean_within_a_medium_then_sum_over_media():
    # Template 7: video 1 with frames (2, 0) and (4, 0): mean (3, 0); photo 2 with (0, 4). Sum (3, 4).
    features = np.array([[2.0, 0], [4, 0], [0, 4]])
    templates, ids = template_embeddings(features, [7, 7, 7], [1, 1, 2])
    np.testing.assert_allclose(templates, [[0.6, 0.8]], atol=1e-7)
    assert ids.tolist() == [7]
    assert templates.dtype == np.float32


def test_detector_score_weights_each_image():
    # (2, 0) * 1/2 and (4, 0) * 1: mean (2.5, 0); (0, 4) * 1/4 = (0, 1).
    features = np.array([[2.0, 0], [4, 0], [0, 4]])
    templates, _ = template_embeddings(features, [7, 7, 7], [1, 1, 2], detector_scores=[0.5, 1.0, 0.25])
    np.testing.assert_allclose(templates, [unit(2.5, 1.0)], atol=1e-7)


def test_without_norm_weighting_each_image_has_length_one():
    # Frames (1, 0) and (0, 1): mean (1/2, 1/2); photo (0, 1): sum (1/2, 3/2).
    features = np.array([[2.0, 0], [0, 8], [0, 4]])
    templates, _ = template_embeddings(features, [7, 7, 7], [1, 1, 2], norm_weighting=False)
    np.testing.assert_allclose(templates, [unit(0.5, 1.5)], atol=1e-7)


def test_flip_is_added_before_normalization():
    features, flipped = np.array([[3.0, 0], [0, 1]]), np.array([[0.0, 4], [0, 1]])
    # (3, 4) / 5 + (0, 2) / 2 = (0.6, 1.8)
    templates, _ = template_embeddings(features, [1, 1], [1, 2], norm_weighting=False, flipped_features=flipped)
    np.testing.assert_allclose(templates, [unit(0.6, 1.8)], atol=1e-7)


def test_same_medium_in_two_templates_is_two_media():
    assert image_weights([1, 1, 2, 1], [5, 5, 5, 6]).tolist() == [0.5, 0.5, 1.0, 1.0]
    assert image_weights([2**62, -1, 2**62, -1], [0, 2**62, 0, 0]).tolist() == [0.5, 1.0, 0.5, 1.0]


def test_unsorted_templates_and_blocks_change_nothing(rng, tmp_path):
    import h5py

    features = rng.normal(size=(200, 6)).astype("float32")
    ids, media = rng.integers(3, 40, 200), rng.integers(0, 4, 200)
    expected, names = template_embeddings(features, ids, media)
    assert names.tolist() == np.unique(ids).tolist()
    order = np.argsort(ids, kind="stable")
    for block_size in (1, 17, 1000):
        np.testing.assert_array_equal(template_embeddings(features, ids, media, block_size=block_size)[0], expected)
        ordered = template_embeddings(features[order], ids[order], media[order], block_size=block_size)[0]
        np.testing.assert_array_equal(ordered, expected)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("x", data=features)
        np.testing.assert_array_equal(template_embeddings(dataset, ids, media, block_size=50)[0], expected)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"media_ids.shape=\(3,\)"):
        template_embeddings(np.ones((2, 2)), [1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match=r"features\[1\] holds NaN"):
        template_embeddings(np.array([[1.0, 0], [np.nan, 0]]), [1, 1], [1, 1])
    with pytest.raises(ValueError, match=r"flipped_features\[0\] holds NaN"):
        template_embeddings(np.ones((1, 1)), [1], [1], flipped_features=np.full((1, 1), np.inf))
    with pytest.raises(ValueError, match=r"flipped_features.shape=\(1, 2\)"):
        template_embeddings(np.ones((1, 3)), [1], [1], flipped_features=np.ones((1, 2)))
    with pytest.raises(ValueError, match="template 4"):
        template_embeddings(np.array([[1.0], [-1.0]]), [4, 4], [1, 2])
    for score in (np.nan, np.inf, -0.1, 1.5):
        with pytest.raises(ValueError, match=rf"of 0\.\.1\. Received: detector_scores\[1\]={score:g}"):
            template_embeddings(np.ones((2, 1)), [1, 1], [1, 1], detector_scores=[1.0, score])
    with pytest.raises(ValueError, match=r"features.shape=\(3,\)"):
        template_embeddings(np.ones(3), [1], [1])
