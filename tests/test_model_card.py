import dataclasses
import json

import numpy as np
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
    assert "SphereFace" not in body.replace("keras_sphereface", ""), "a converted model may have had another head"
    assert "sphereface" not in fields["tags"]


def test_thresholds_and_speed():
    card = Card(
        thresholds=[{"far": 1e-3, "threshold": 0.345, "tar": 97.5}, {"far": 0.01, "threshold": 0.3}], speed="Fast."
    )
    _, body = front_matter(model_card.render(card, "me/faces", DESCRIPTION))
    assert "| 0.001 | 0.345 | 97.5 % |" in body
    assert "| 0.01 | 0.3 |  |" in body
    assert "## Speed\n\nFast." in body


def test_numbers_of_numpy_are_taken():
    """As a mean of accuracies gives them."""
    card = Card(
        license=np.str_("mit"),
        metrics=[{**METRICS[0], "value": 100 * np.mean([1.0, 0.5])}, {**METRICS[1], "value": np.float32(0.5)}],
        thresholds=[{"far": np.float32(0.5), "threshold": np.float64(0.25), "tar": np.int64(97)}],
    )
    fields, body = front_matter(model_card.render(card, "me/faces", DESCRIPTION))
    assert [entry["value"] for entry in fields["model-index"][0]["results"][0]["metrics"]] == [75.0, 0.5]
    assert "| 0.5 | 0.25 | 97 % |" in body
    assert json.loads(json.dumps(card.description_fields()))["thresholds"] == [
        {"far": 0.5, "threshold": 0.25, "tar": 97}
    ]


def test_cells_of_tables_are_escaped():
    metric = {**METRICS[0], "dataset": "a | b", "name": "c\nd", "command": "measure | it"}
    _, body = front_matter(model_card.render(Card(metrics=[metric]), "me/faces", DESCRIPTION))
    assert "| a \\| b | c d | 98.5 % | `measure \\| it` |" in body


def test_names_without_latin_letters_leave_no_field_empty():
    metric = {**METRICS[0], "name": "\u7cbe\u5ea6", "dataset": "\u9854"}
    fields = model_card.metadata(Card(license="\u5c02\u7528", metrics=[metric]), "me/faces")
    assert (fields["license"], fields["license_name"], fields["metrics"]) == ("other", "other", ["metric"])
    (result,) = fields["model-index"][0]["results"]
    assert result["dataset"] == {"name": "\u9854", "type": "dataset"}
    assert result["metrics"][0]["type"] == "metric"


@pytest.mark.parametrize("name", ["license", "data", "limits", "speed", "name"])
@pytest.mark.parametrize("value", [None, 5, ["mit"]])
def test_texts_are_checked(name, value):
    if value is None and name in ("speed", "name"):
        assert Card(**{name: None})
        return
    with pytest.raises(ValueError, match=rf"^{name}: expected a text\. Received: "):
        Card(**{name: value})


@pytest.mark.parametrize("name", ["metrics", "thresholds"])
@pytest.mark.parametrize("value", [None, {}, "x"])
def test_lists_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected a list"):
        Card(**{name: value})


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "accuracy"},
        *({**METRICS[0], "value": value} for value in ("98.5", True, float("nan"), float("inf"), 10**400, None)),
        {**METRICS[0], "value": np.zeros((2, 2))},
        {**METRICS[0], "unit": None},
        "accuracy",
    ],
)
def test_metrics_are_checked(metric):
    with pytest.raises(ValueError, match=r"^A metric needs[^\n]*$"):
        Card(metrics=[metric])


@pytest.mark.parametrize(
    "change",
    [
        *({"far": "x"}, {"tar": None}, {"threshold": float("nan")}, {"threshold": True}, {"more": 1}),
        *({"far": 0}, {"far": 1}, {"threshold": 1.0005}, {"threshold": 99}, {"tar": 101}, {"tar": -1}),
    ],
)
def test_thresholds_are_checked(change):
    with pytest.raises(ValueError, match="`far` and `threshold`"):
        Card(thresholds=[{"far": 0.01}])
    with pytest.raises(ValueError, match="`far` and `threshold`"):
        Card(thresholds=[{"far": 0.01, "threshold": 0.3, **change}])


def test_a_card_has_no_thresholds_that_a_recognizer_would_refuse():
    with pytest.raises(ValueError, match=r"grow as the FAR falls\. Received: .*\[\(0\.01, 0\.3\), \(0\.001, 0\.2\)\]"):
        Card(thresholds=[{"far": 0.001, "threshold": 0.2}, {"far": 0.01, "threshold": 0.3}])


def test_a_preset_has_a_card():
    preset = presets.get("sfnet20_ms1m")
    card = model_card.from_preset(preset)
    assert (card.data, card.description, card.limits) == (preset.data, preset.description, Card.limits)


def test_a_presets_notes_are_a_list_below_its_description():
    preset = dataclasses.replace(presets.get("sfnet20_ms1m"), description="A network.", notes=["speed: much", "log"])
    _, body = front_matter(model_card.render(model_card.from_preset(preset), "me/faces", DESCRIPTION))
    assert "\n\nA network.\n\n- speed: much\n- log\n\n" in body
    assert f"## Limits\n\n{Card.limits}\n" in body
