"""The parts of the zoo's distillation recipe: schedules, mixing of faces, the pool, the optimizer."""

import pathlib
import sys

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the recipe runs on Keras's PyTorch backend")
RECIPE = pathlib.Path(__file__).parents[1] / "zoo" / "patch_sfnet_celeba"


@pytest.fixture(scope="module")
def distill():
    sys.path.insert(0, str(RECIPE))
    try:
        import distill
        import faces

        yield distill, faces
    finally:
        sys.path.remove(str(RECIPE))


class OneColorFaces:
    """Image k is filled with k, its label is k % 3, and every fourth is unlabelled."""

    num_identities = 3

    def draw(self, count, generator):
        values = torch.arange(count)
        images = values[:, None, None, None].expand(count, 3, 112, 112).to(torch.uint8)
        return images, torch.where(values % 4 == 3, -1, values % 3)


def one_teacher(images):
    """Embedding k points to axis k; maps have the standard deviation that the pool divides by."""
    maps = [torch.randn(len(images), side, side, 4) * 5 for side in (4, 2, 1)]
    return maps, 7 * torch.eye(128)[images[:, 0, 0, 0].long()]


def test_learning_rate_warms_up_stays_and_ends_at_zero(distill):
    rate = distill[0].learning_rate
    assert rate(1.0, 0.0, 0) == pytest.approx(0.01)
    assert rate(1.0, 0.5, 500) == 1.0
    assert rate(1.0, 0.85, 500) == pytest.approx(0.5)
    assert rate(1.0, 1.0, 500) == 0.0


def test_hints_and_forcing_fall(distill):
    assert distill[0].hint_weight(0.0) == 1.0
    assert distill[0].hint_weight(0.4) == pytest.approx(0.525)
    assert distill[0].hint_weight(0.9) == pytest.approx(0.05)
    assert [distill[0].forcing(p) for p in (0.0, 0.125, 0.25, 0.7)] == [1.0, 0.5, 0.0, 0.0]


def test_pool_replaces_the_oldest_and_sums_prototypes(distill):
    pool = distill[0].Pool(OneColorFaces(), one_teacher, size=10, renewal=4, device="cpu")
    pool.add(8, 0)
    assert (pool.filled, pool.place) == (8, 8)
    pool.add(4, 1)
    assert (pool.filled, pool.place) == (10, 2)
    shown = pool.columns[0][:, 0, 0, 0].tolist()
    assert shown == [2, 3, 2, 3, 4, 5, 6, 7, 0, 1]
    # Labels 0, 1, 2 of images 0, 1, 2, 4, 5, 6, then of 0, 1, 2: 3 and 7 have none.
    assert pool.prototypes[0].nonzero()[:, 0].tolist() == [0, 6]
    assert pool.prototypes[0, 0] == 2
    assert pool.prototypes[:, 3].sum() == 0
    images, (*maps, embeddings), _ = pool.batch(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, 112, 112, 3)
    assert [tuple(values.shape[1:]) for values in maps] == [(4, 4, 4), (2, 2, 4), (1, 1, 4)]
    assert torch.equal(embeddings.argmax(1).float(), images[:, 0, 0, 0])
    assert (embeddings.norm(dim=1) - 1).abs().max() < 1e-6


def test_the_thread_draws_what_add_draws_one_renewal_later(distill):
    pool, other = (distill[0].Pool(OneColorFaces(), None, size=10, renewal=4, device="cpu") for _ in range(2))
    for number in (5, 6, 7):
        pool.renew(number)
    other.add(4, 5)
    other.add(4, 6)
    assert (pool.filled, pool.place) == (8, 8)
    assert torch.equal(pool.columns[0][:8], other.columns[0][:8])


def test_pool_without_a_teacher_holds_images_and_labels(distill):
    pool = distill[0].Pool(OneColorFaces(), None, size=8, renewal=4, device="cpu")
    pool.add(8, 0)
    images, taught, labels = pool.batch(6, torch.Generator().manual_seed(0))
    assert taught == []
    value = images[:, 0, 0, 0].long()
    assert torch.equal(labels, torch.where(value % 4 == 3, -1, value % 3))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="trains on Keras's PyTorch backend")
@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 0.02), ("float32", 1e-5)])  # bfloat16 has 8 bits
def test_the_students_stages_are_the_keras_model(distill, dtype, tolerance):
    from student import stages

    from keras_sphereface import backbones

    backbone = backbones.PatchSFNet((1, 2, 0), (8, 8, 8), (4, 8, 8), dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    for variable in backbone.trainable_variables:  # the units' last convolutions start at zero and would hide an error
        variable.assign(0.1 * torch.randn(variable.shape, generator=generator))
    images = torch.randint(0, 256, (3, 112, 112, 3), generator=generator).float()
    maps = []
    x = images
    for stage in stages(backbone):
        x = stage(x)
        maps.append(x)
    expected = backbone(images, training=True).float()
    assert [tuple(x.shape) for x in maps[:-1]] == [(3, 28, 28, 8), (3, 14, 14, 8), (3, 7, 7, 8)]
    assert maps[0].dtype == getattr(torch, backbone.compute_dtype)
    assert (maps[-1] - expected).norm() < tolerance * expected.norm()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="trains on Keras's PyTorch backend")
def test_without_a_teacher_sphereface_r_alone_learns(distill):
    from keras_sphereface import backbones

    class RedGreenBlueFaces(OneColorFaces):
        def draw(self, count, generator):
            labels = torch.arange(count) % 3
            images = 255 * torch.eye(3)[labels][:, :, None, None].expand(count, 3, 112, 112)
            return images.to(torch.uint8), labels

    pool = distill[0].Pool(RedGreenBlueFaces(), None, size=9, renewal=3, device="cpu")
    pool.add(9, 0)
    student = distill[0].Distiller(backbones.PatchSFNet((0, 0, 0), (8, 8, 8), (8, 8, 8)), pool, 0.01, batch_size=8)
    generator = torch.Generator().manual_seed(0)
    losses = [student.train_step(0.0, generator)[-1] for _ in range(40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_mixed_images_lose_their_label(distill):
    faces = distill[1]
    x = torch.arange(200.0)[:, None, None, None].expand(200, 3, 112, 112)
    mixed, single = faces.mix(x, np.random.default_rng(0))
    unchanged = (mixed == x).all(dim=(1, 2, 3)).numpy()
    assert unchanged[single].all()
    assert 0.2 < 1 - single.mean() < 0.45
    assert (~unchanged[~single]).mean() > 0.95  # a partner may be the image itself


def test_augmentation_keeps_shape_and_is_seeded(distill):
    faces = distill[1]
    x = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (6, 3, 112, 112)).astype("float32"))

    def augmented(seed):
        generator = np.random.default_rng(seed)
        return faces.degrade(faces.recolor(faces.warp(x, generator), generator), generator)

    first, again, other = augmented(0), augmented(0), augmented(1)
    assert first.shape == x.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="trains on Keras's PyTorch backend")
def test_muon_moves_all_directions_of_a_convolution_alike(distill):
    layer = keras.layers.Conv2D(6, 2, name="conv")
    layer.build((None, 8, 8, 4))
    before = keras.ops.convert_to_numpy(layer.kernel)
    optimizer = distill[0].ConvMuon(0.1, weight_decay=None, adam_weight_decay=None, rms_rate=None, ns_steps=10)
    gradient = torch.from_numpy(np.random.default_rng(0).normal(size=before.shape).astype("float32"))
    with torch.no_grad():
        optimizer.apply([gradient, torch.zeros(6)], [layer.kernel, layer.bias])
    update = (keras.ops.convert_to_numpy(layer.kernel) - before).reshape(-1, 6)
    singular = np.linalg.svd(update, compute_uv=False) / 0.1
    assert singular.min() > 0.6  # Newton-Schulz's coefficients end between 0.7 and 1.2
    assert singular.max() < 1.3
