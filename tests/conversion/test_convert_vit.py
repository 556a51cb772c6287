"""Conversion of the vision transformers of InsightFace, LVFace and CVLface, beside PyTorch's own modules."""

import numpy as np
import pytest
from keras import ops

from keras_sphereface import cli, errors
from keras_sphereface.conversion import convert

torch = pytest.importorskip("torch", reason="conversion reads PyTorch files: pip install 'keras_sphereface[convert]'")
nn = torch.nn

SMALL = {"dim": 32, "depth": 2, "heads": 4, "ratio": 2, "patch": 16}
TINY = {"dim": 256, "depth": 12, "heads": 8, "ratio": 4, "patch": 9}  # InsightFace's ViT-T
EMBEDDING_DIM = 6


class Attention(nn.Module):
    def __init__(self, dim, heads, bias):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim)

    def forward(self, x):
        images, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(images, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).reshape(images, tokens, dim))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio, bias):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, bias)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(nn.functional.relu6(self.mlp.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """In the order and with the names of arcface_torch's modules."""

    def __init__(self, dim, depth, heads, ratio, patch, bias=False, mask_token=True):
        super().__init__()
        tokens = (112 // patch) ** 2
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ratio, bias) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.feature = nn.Sequential(
            nn.Linear(dim * tokens, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, EMBEDDING_DIM, bias=False),
            nn.BatchNorm1d(EMBEDDING_DIM, eps=2e-5),
        )
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.feature(self.norm(x).flatten(1))


def made(**arguments):
    """A network with seeded weights and statistics that are not trivial."""
    torch.manual_seed(0)
    module = Transformer(**arguments)
    for name, value in module.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 1.0)
        elif not name.endswith(("weight", "tracked")):
            value.normal_(std=0.5)
    return module.eval()


def check(model, module, flip=False):
    images = np.random.RandomState(3).randint(0, 256, (3, 112, 112, 3)).astype("uint8")
    x = torch.from_numpy((images[..., ::-1] if flip else images).astype("float32")).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = module((x - 127.5) / 127.5).numpy()
    found = ops.convert_to_numpy(model(images, training=False))
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    assert model.conversion_report.max_relative_difference < 1e-4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def save(path, state):
    torch.save(state, path)
    return path


def test_insightfaces_is_recognized(path):
    """Of the sizes that it publishes the number of heads is known; what training alone needs is named and left aside."""
    module = made(**TINY)
    model = convert(save(path, module.state_dict()))
    check(model, module)
    report = model.conversion_report
    assert report.architecture == "vit_t"
    assert "mask_token" in report.ignored
    assert (model.get_config()["num_heads"], model.get_config()["mask_ratio"]) == (8, 0.0)
    check(convert(path, "vit_t", channel_order="BGR"), module, flip=True)
    with pytest.raises(errors.FileFormatError, match=r"does not fit vit_b .*missing tensors: .*blocks\.12\."):
        convert(path, "vit_b")
    with pytest.raises(ValueError, match=r"`num_heads` is for 'vit'\. Received: num_heads=4, architecture='vit_t'"):
        convert(path, num_heads=4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "net.", "model.net."])
def test_cvlfaces_and_others_of_any_size(bias, prefix, path):
    module = made(**SMALL, bias=bias, mask_token=False)
    save(path, {prefix + name: value.clone() for name, value in module.state_dict().items()})
    model = convert(path, num_heads=4, channel_order="RGB")
    check(model, module)
    assert model.conversion_report.architecture == "vit"
    config = model.get_config()
    assert (config["depth"], config["hidden_dim"], config["mlp_ratio"], config["patch_size"]) == (2, 32, 2.0, 16)
    assert config["qkv_bias"] is bias


def test_what_no_file_tells_must_be_given(path):
    save(path, made(**SMALL).state_dict())
    with pytest.raises(
        ValueError, match=r"`num_heads` must be given for 'vit'.*CVLface's small ViT has 8, its base 16"
    ):
        convert(path, channel_order="RGB")
    with pytest.raises(ValueError, match=r"`channel_order` must be given for 'vit'"):
        convert(path, "vit", num_heads=4)
    with pytest.raises(ValueError, match=r"multiple of `num_heads`.*hidden_dim=32, num_heads=5"):
        convert(path, num_heads=5, channel_order="RGB")
    with pytest.raises(ValueError, match="num_heads=0"):
        convert(path, num_heads=0, channel_order="RGB")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.norm1.weight"), r"unknown tensors: blocks\.1\.attn\.proj\.bias"),
        (lambda state: state.pop("pos_embed"), r"missing tensors: pos_embed"),
        (lambda state: state.pop("feature.2.weight"), r"missing tensor 'feature\.2\.weight'"),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 32)), r"unknown tensors: cls_token"),
        (
            lambda state: state.update(pos_embed=torch.zeros(1, 50, 32)),
            r"pos_embed \(has \(1, 50, 32\), expected \(1, 49",
        ),
        (lambda state: state.update({"patch_embed.proj.weight": torch.zeros(32)}), r"the shape \(32,\), expected 4"),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(change, message, path):
    state = dict(made(**SMALL).state_dict())
    change(state)
    with pytest.raises(errors.FileFormatError, match=message) as error:
        convert(save(path, state), num_heads=4, channel_order="RGB")
    assert "\n" not in str(error.value)


def test_names_of_thousands_of_blocks_build_no_network(path):
    state = {f"blocks.{number}.norm1.weight": torch.zeros(1) for number in range(3000)}
    save(path, {**state, "patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)})
    with pytest.raises(errors.FileFormatError, match="3000 residual units, expected at most 120"):
        convert(path, num_heads=4, channel_order="RGB")


def test_command_line(path, tmp_path, capsys):
    save(path, made(**SMALL).state_dict())
    arguments = ["convert", str(path), "--channel-order", "BGR", "--output", str(tmp_path / "model.keras")]
    assert cli.main(arguments) == cli.ERROR
    assert "`num_heads` must be given" in capsys.readouterr().err
    assert cli.main([*arguments, "--num-heads", "4"]) == 0
    assert "left aside     mask_token" in capsys.readouterr().out
