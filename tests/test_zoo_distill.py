"""The parts of the zoo's distillation recipe: schedules, mixing of faces, the pool, the optimizer."""

import pathlib
import sys

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the recipe runs on Keras's PyTorch backend")
F = torch.nn.functional
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
    """Image k is filled with k and white in its left half, its label is k % 3, and every fourth is unlabelled."""

    num_identities = 3

    def draw(self, count, generator):
        values = torch.arange(count)
        images = values[:, None, None, None].repeat(1, 3, 112, 112).to(torch.uint8)
        images[..., :56] = 255
        return images, torch.where(values % 4 == 3, -1, values % 3)


def one_teacher(images):
    """Image k points to axis k, its mirror image to axis 100 + k; the pool divides maps by their standard deviation."""
    maps = [torch.randn(len(images), side, side, 4) * 5 for side in (4, 2, 1)]
    mirrored = images[:, 0, 0, 0] != 255
    axes = torch.where(mirrored, 100 + images[:, 0, 0, 0].long(), images[:, 0, 0, -1].long())
    return maps, 7 * torch.eye(128)[axes]


def test_learning_rate_warms_up_stays_and_ends_at_zero(distill):
    rate = distill[0].learning_rate
    assert rate(1.0, 0.0, 0) == pytest.approx(0.01)
    assert rate(1.0, 0.5, 500) == 1.0
    assert rate(1.0, 0.75, 500) == pytest.approx(0.5)
    assert rate(1.0, 1.0, 500) == 0.0


def test_hints_and_forcing_fall(distill):
    assert distill[0].hint_weight(0.0) == 1.0
    assert distill[0].hint_weight(0.4) == pytest.approx(0.525)
    assert distill[0].hint_weight(0.9) == pytest.approx(0.05)
    assert [distill[0].forcing(p) for p in (0.0, 0.125, 0.25, 0.7)] == [1.0, 0.5, 0.0, 0.0]


def one_teacher_of_8(images):
    """The same for a student of 8 channels."""
    generator = torch.Generator().manual_seed(len(images))
    maps = [torch.randn((len(images), side, side, 8), generator=generator) for side in (28, 14, 7)]
    return maps, one_teacher(images)[1]


def color(images):
    """The number k of `OneColorFaces`' images, `(n, 3, 112, 112)`, mirrored or not."""
    return torch.minimum(images[:, 0, 0, 0], images[:, 0, 0, -1])


def test_pool_replaces_the_oldest_and_sums_prototypes(distill):
    pool = distill[0].Pool(OneColorFaces(), one_teacher, size=10, renewal=4, device="cpu")
    pool.add(8, 0)
    assert (pool.filled, pool.place) == (8, 8)
    pool.add(4, 1)
    assert (pool.filled, pool.place) == (10, 2)
    # Four images and their mirror images, then two and theirs.
    assert color(pool.columns[0]).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert (pool.columns[0][:, 0, 0, 0] == 255).tolist() == [False, False, True, True, *[False] * 4, True, True]
    # Label 0 of image 0 and its mirror image, drawn twice; an embedding is the sum of both, as a unit vector. 3 has none.
    assert pool.prototypes[0].nonzero()[:, 0].tolist() == [0, 100]
    assert torch.allclose(pool.prototypes[0, [0, 100]], torch.tensor(4 / 2**0.5))
    assert pool.prototypes[:, [3, 103]].sum() == 0
    images, (*maps, embeddings), _ = pool.batch(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, 112, 112, 3)
    assert [tuple(values.shape[1:]) for values in maps] == [(4, 4, 4), (2, 2, 4), (1, 1, 4)]
    assert torch.equal(embeddings[:, :100].argmax(1), color(images.permute(0, 3, 1, 2)).long())
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
    value = color(images.permute(0, 3, 1, 2)).long()
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
    mixed, single = faces.mix(x, torch.Generator().manual_seed(0))
    unchanged = (mixed == x).all(dim=(1, 2, 3))
    assert unchanged[single].all()
    assert 0.2 < 1 - single.float().mean() < 0.45
    assert (~unchanged[~single]).float().mean() > 0.95  # a partner may be the image itself
    # Two halves: one straight cut, its place within `CUT`.
    pairs = [image for image in mixed[~single, 0] if len(image.unique()) == 2]
    assert len(pairs) > 10
    for image in pairs:
        rows, columns = (int((line != line[0]).sum()) for line in (image[:, 0], image[0]))
        assert (rows == 0) != (columns == 0)
        assert faces.CUT[0] <= 112 - (rows or columns) <= faces.CUT[1]


def test_hidden_rectangles_have_the_sizes_that_are_stated(distill):
    faces = distill[1]
    covered = faces._stretch(torch.Generator().manual_seed(0), 500)
    assert covered.shape == (500, 112)
    sizes = covered.sum(1)
    assert (sizes.min(), sizes.max()) == (12, 47)
    assert (covered.int().diff(dim=1) == 1).sum(1).max() == 1  # in one piece


def test_augmentation_keeps_shape_and_is_seeded(distill):
    faces = distill[1]
    x = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (6, 3, 112, 112)).astype("float32"))

    def augmented(seed):
        generator = torch.Generator().manual_seed(seed)
        return faces.degrade(faces.recolor(faces.warp(x, generator), generator), generator)

    first, again, other = augmented(0), augmented(0), augmented(1)
    assert first.shape == x.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_muon_moves_all_directions_of_each_convolution_alike(distill):
    generator = torch.Generator().manual_seed(0)
    kernels = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(2, 2, 4, 6), (1, 1, 5, 3), (2, 2, 4, 6)]]
    for kernel in kernels:
        kernel.grad = torch.randn(kernel.shape, generator=generator)
    distill[0].ConvMuon(kernels, lr=0.1, weight_decay=0.0, matrix_dtype=torch.float32).step()
    for kernel in kernels:
        matrix, gradient = (x.detach().reshape(-1, x.shape[-1]) for x in (kernel, kernel.grad))
        scale = 0.1 * 0.2 * max(matrix.shape) ** 0.5
        singular = torch.linalg.svdvals(matrix) / scale
        assert singular.min() > 0.6  # Newton-Schulz's coefficients end between 0.7 and 1.2
        assert singular.max() < 1.3
        u, _, v = torch.linalg.svd(gradient, full_matrices=False)
        assert F.cosine_similarity((u @ v).flatten(), -matrix.flatten(), 0) > 0.95


def test_muons_weight_decay_is_decoupled(distill):
    kernel = torch.nn.Parameter(torch.ones(1, 1, 4, 4))
    kernel.grad = torch.zeros_like(kernel)
    distill[0].ConvMuon([kernel], lr=0.5, weight_decay=0.1).step()
    assert torch.allclose(kernel, torch.tensor(0.95))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="trains on Keras's PyTorch backend")
def test_training_goes_on_from_its_checkpoint(distill, tmp_path):
    from keras_sphereface import backbones

    def trained(steps, load=None, save=None):
        pool = distill[0].Pool(OneColorFaces(), one_teacher_of_8, size=8, renewal=4, device="cpu")
        keras.utils.set_random_seed(0)
        student = distill[0].Distiller(backbones.PatchSFNet((1, 0, 0), (8, 8, 8), (8, 8, 8)), pool, 0.01, batch_size=4)
        torch.manual_seed(0)
        if load:
            student.load(load)
        pool.add(8, 0)
        for _ in range(steps):
            student.train_step(0.7, torch.Generator().manual_seed(student.step))
        if save:
            student.save(save)
        return student

    path = tmp_path / "checkpoint.pt"
    whole = trained(4)
    trained(2, save=path)
    parts = trained(2, load=path)
    assert (parts.step, len(parts.optimizers)) == (4, 3)
    for mine, other in zip(parts.average, whole.average):
        torch.testing.assert_close(mine, other)
