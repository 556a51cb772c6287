import pytest
import yaml

from keras_sphereface import model_card, presets
from keras_sphereface.model_card import Card

DESCRIPTION = {
    "image_size": [112, 112],
    "embedding_dim": 128,
    "parameters": 1022720,
    "sha256": {"model.weights.h5": "ab" * 32},
}
METRICS = [
    {
        "name": "accuracy",
        "dataset": "LFW View 2",
        "value": 98.5,
        "unit": "%",
        "command": "keras-sphereface evaluate m lfw",
    },
    {"name": "TAR at FAR 1e-3", "dataset": "LFW View 2", "value": 97, "unit": "%", "command": "the same"},
    {"name": "accuracy", "dataset": "CFP-FP", "value": 90.1, "unit": "%", "command": "another"},
]


def front_matter(text):
    first, block, body = text.split("---\n", 2)
    assert first == ""
    return yaml.safe_load(block), body


def test_metadata_is_what_the_hub_reads():
    fields, body = front_matter(model_card.render(Card(license="mit", metrics=METRICS), "me/faces", DESCRIPTION))
    assert fields["library_name"] == "keras"
    assert fields["license"] == "mit"
    assert "face-recognition" in fields["tags"]
    assert fields["metrics"] == ["accuracy", "tar_at_far_1e_3"]
    (index,) = fields["model-index"]
    assert index["name"] == "faces"
    assert [result["dataset"]["name"] for result in index["results"]] == ["LFW View 2", "CFP-FP"]
    assert index["results"][0]["metrics"][0] == {"type": "accuracy", "name": "accuracy (%)", "value": 98.5}
    assert "| LFW View 2 | accuracy | 98.5 % | `keras-sphereface evaluate m lfw` |" in body
    assert 'ksf.load_pretrained("hf://me/faces")' in body
    assert "1,022,720 parameters" in body
    assert "ab" * 32 in body


def test_the_hub_client_reads_the_metadata():
    huggingface_hub = pytest.importorskip("huggingface_hub")
    text = model_card.render(Card(license="mit", metrics=METRICS), "me/faces", DESCRIPTION)
    data = huggingface_hub.ModelCard(text).data
    assert data.library_name == "keras"
    assert [(result.dataset_name, result.metric_value) for result in data.eval_results] == [
        ("LFW View 2", 98.5),
        ("LFW View 2", 97),
        ("CFP-FP", 90.1),
    ]


def test_licences_that_the_hub_does_not_know():
    fields = model_card.metadata(Card(license="Non-commercial research (CelebA, UTKFace)"), "me/faces")
    assert fields["license"] == "other"
    assert fields["license_name"] == "non-commercial-research-celeba-utkface"


def test_a_card_without_facts_says_so():
    fields, body = front_matter(model_card.render(Card(), "me/faces", DESCRIPTION))
    assert "model-index" not in fields
    assert fields["license"] == "unknown"
    assert "Nothing was measured by the publisher" in body
    assert "Not stated by the publisher" in body


def test_thresholds_and_speed():
    card = Card(
        thresholds=[{"far": 1e-3, "threshold": 0.345, "tar": 97.5}, {"far": 0.01, "threshold": 0.3}], speed="Fast."
    )
    _, body = front_matter(model_card.render(card, "me/faces", DESCRIPTION))
    assert "| 0.001 | 0.345 | 97.5 % |" in body
    assert "| 0.01 | 0.3 |  |" in body
    assert "## Speed\n\nFast." in body


@pytest.mark.parametrize("metric", [{"name": "accuracy"}, {**METRICS[0], "value": "98.5"}])
def test_metrics_are_checked(metric):
    with pytest.raises(ValueError, match="A metric needs"):
        Card(metrics=[metric])


def test_a_threshold_is_checked():
    with pytest.raises(ValueError, match="`far` and `threshold`"):
        Card(thresholds=[{"far": 0.01}])


def test_a_preset_has_a_card():
    preset = presets.get("sfnet20_ms1m")
    card = model_card.from_preset(preset)
    assert card.data == preset.data
    assert Card.limits in card.limits
