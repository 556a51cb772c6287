"""The page in headless Chromium: two pictures in, the answer read, a screenshot taken; and the Space that shows it."""

import importlib.metadata
import pathlib
import re
import runpy
import shutil
import signal
import types

import numpy as np
import pytest
from PIL import Image

import keras_sphereface as ksf
from keras_sphereface import cli, demo
from keras_sphereface.cli import options


@pytest.fixture
def recognizer():
    def colour(images):
        return images.astype(np.float32).mean(axis=(1, 2)) + 1e-3

    return ksf.Recognizer(colour, detector=None, thresholds={1e-2: 0.3, 1e-3: 0.999})


@pytest.fixture
def faces():
    dataset = ksf.data.synthetic(2, 1, seed=3)
    return [dataset.read(number)[0] for number in range(2)]


def test_answers_and_errors_are_text(recognizer, faces):
    text, *crops = demo.compare(recognizer, faces[0], faces[0], "0.001")
    assert text.startswith("## Same person\nScore 1.000 (threshold 0.999, false accept rate 1.0e-03)")
    np.testing.assert_array_equal(crops[0], faces[0])
    assert demo.compare(recognizer, None, faces[0], "0.01")[0] == "**Give two photos**"
    assert "expected an aligned crop" in demo.compare(recognizer, faces[0][:9], faces[0], 0.5)[0]
    assert "is empty" in demo.identify(recognizer, faces[0], 0.5)
    assert demo.enroll(recognizer, "Ann", faces[0]) == "Ann: 1 added, 1 in the gallery"
    assert demo.identify(recognizer, faces[0], 0.5).startswith("## Ann")
    assert "name=''" in demo.enroll(recognizer, "", faces[1])
    recognizer.gallery.remove("Ann")
    assert demo.enroll(recognizer, "A|B *x*", faces[0]).startswith(r"A\|B \*x\*: 1 added")
    assert r"| A\|B \*x\* | 1.000 |" in demo.identify(recognizer, faces[0], 0.5)


@pytest.mark.parametrize(
    ("thresholds", "given", "choices", "value", "decision"),
    [
        ({1e-2: 0.3, 1e-3: 0.5}, {}, ["0.01", "0.001"], "0.001", 0.5),
        ({1e-2: 0.3, 1e-3: 0.5}, {"far": 1e-2}, ["0.01", "0.001"], "0.01", 0.3),
        ({1e-2: 0.3, 1e-3: 0.5}, {"threshold": 0.3}, ["0.01", "0.001"], "0.01", 0.3),
        ({1e-2: 0.3, 1 / 600: 0.5}, {}, ["0.01", "0.00166667"], repr(1 / 600), 0.5),  # more digits than are shown
        ({1e-2: 0.3, 1e-3: 0.5}, {"threshold": 0.4173}, None, 0.4173, 0.4173),  # its FAR is known, but not measured
        ({1e-2: 0.3, 1e-3: 0.5}, {"threshold": 0.9}, None, 0.9, 0.9),
        ((), {}, None, 0.3, 0.3),
    ],
)
def test_the_page_decides_as_the_recognizer_does(faces, thresholds, given, choices, value, decision):
    gradio = pytest.importorskip("gradio", reason="needs the extra [demo]")
    ours = ksf.Recognizer(lambda images: np.eye(len(images), 8) + 1, detector=None, thresholds=thresholds, **given)
    with gradio.Blocks():
        field = demo._decision(gradio, ours)
    assert [label for label, _ in getattr(field, "choices", [])] == (choices or [])
    assert field.value == value
    chosen = field.preprocess(field.value)
    assert ours.compare(np.ones(8), np.ones(8), **demo.choice(chosen)).threshold == decision
    if ours.threshold is not None:
        assert decision == ours.threshold
    assert f"threshold {decision:.3f}, " in demo.compare(ours, faces[0], faces[0], chosen)[0]


@pytest.mark.parametrize("name", ["face.gif", "face.tif", "face.heic", "broken.jpg", "no_image.png"])
def test_an_upload_is_read_as_python_reads_it(recognizer, faces, tmp_path, name):
    gradio = pytest.importorskip("gradio", reason="needs the extra [demo]")
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif", reason="needs the extra [faces]").register_heif_opener()
    path = tmp_path / name
    path.write_bytes(ksf.data.encode_jpeg(faces[0])[:900])
    if name.startswith("face"):
        Image.fromarray(faces[0]).save(path)
    if name == "face.tif":
        Image.fromarray(faces[0][..., 0].astype(np.uint16) << 8).save(path)
    if name == "no_image.png":
        path.write_text("no image")
    with gradio.Blocks():
        field = demo._photo(gradio)
    photo = field.preprocess(field.data_model(path=str(path), orig_name=name))
    answer, crop, _ = demo.compare(recognizer, photo, photo, 0.5)
    if name.startswith("face"):
        np.testing.assert_array_equal(crop, ksf.data.read_image(path))
    else:
        assert answer.startswith("**the first photo: cannot be decoded as an image")


@pytest.mark.parametrize(
    ("port", "told"),
    [(None, "No port from 7860 on is free"), (8000, "Port 8000 cannot be used: another program has it")],
)
def test_a_port_that_is_taken_is_said_to_be(port, told):
    def launch(**options):
        raise OSError("Cannot find empty port")

    with pytest.raises(OSError, match=rf"^{told}\. Choose another \(--port\)$"):
        demo.serve(types.SimpleNamespace(launch=launch), port)


def test_the_page_answers_in_a_browser(recognizer, faces, tmp_path):
    pytest.importorskip("gradio", reason="needs the extra [demo]")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    jpeg = ksf.data.encode_jpeg(faces[0])
    page = demo.build(recognizer)
    address = demo.serve(page)
    with pytest.raises(OSError, match="--port"):
        demo.serve(demo.build(recognizer), int(address.rstrip("/").rsplit(":", 1)[1]))
    settings = webdriver.ChromeOptions()
    settings.binary_location = shutil.which("chromium")
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1400"):
        settings.add_argument(word)
    browser = webdriver.Chrome(settings, webdriver.ChromeService(shutil.which("chromedriver")))
    wait = WebDriverWait(browser, 60)

    def upload(number, name, data):
        (tmp_path / name).write_bytes(data)
        field = f"#photo{number} input[type=file]"
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, field))[0].send_keys(str(tmp_path / name))
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, f"#photo{number} img"))

    def answer(word):
        browser.find_element(By.ID, "compare").click()
        wait.until(lambda b: word in b.find_element(By.ID, "answer").text)
        return browser.find_element(By.ID, "answer").text

    try:
        browser.get(address)
        for number in (1, 2):
            upload(number, "face.png", ksf.data.encode_png(faces[0]))
        assert "Same person\nScore 1.000" in answer("person")
        assert browser.save_screenshot(str(tmp_path / "page.png"))
        assert ksf.data.read_image(tmp_path / "page.png").std() > 1
        browser.find_element(By.CSS_SELECTOR, "#photo2 button[aria-label='Remove Image']").click()
        upload(2, "broken.jpg", jpeg[: len(jpeg) // 2])
        assert "the second photo: cannot be decoded" in answer("photo")
    finally:
        browser.quit()
        page.close()


def test_the_command_ends_by_sigterm_as_by_ctrl_c(monkeypatch):
    """Python's own end by SIGTERM would leave the uploads where they are."""
    before = signal.getsignal(signal.SIGTERM)
    page = types.SimpleNamespace(block_thread=lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(options, "make_recognizer", lambda *args, **options: None)
    monkeypatch.setattr(demo, "build", lambda recognizer: page)
    monkeypatch.setattr(demo, "serve", lambda *args: "http://127.0.0.1:7860/")
    try:
        assert cli.main(["demo"]) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("port", [0, -1, 65536, "7860", 1.5])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="`port` must be"):
        demo.serve(None, port)


def test_the_space_is_this_page(recognizer, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="needs the extra [demo]")
    space, pages = pathlib.Path(__file__).resolve().parent.parent / "examples" / "space", []
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page: pages.append(page.title))
    monkeypatch.setattr(ksf, "Recognizer", lambda: recognizer)
    runpy.run_path(str(space / "app.py"))
    assert pages == [demo.TITLE]
    extras = re.fullmatch(r"keras_sphereface\[(.*)\]", (space / "requirements.txt").read_text().strip())[1].split(",")
    assert set(extras) <= set(importlib.metadata.metadata("keras_sphereface").get_all("Provides-Extra"))
