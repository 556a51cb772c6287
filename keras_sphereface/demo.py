"""A page for the browser: two photos in, the answer out; and a small gallery. By Gradio, extra `[demo]`.

Photos stay on the machine that runs the page: its copies of uploads are deleted after a minute, and nothing is reported.
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.images import Photo, read_file
from keras_sphereface.errors import require

if TYPE_CHECKING:
    import gradio

    from keras_sphereface.recognition import Recognizer

TITLE = "Same person?"
NOTE = (
    "Photos stay on the machine that runs this page and are not kept. Compare people only with their consent; "
    "a score is never the only ground of a decision about a person."
)
KEEP_UPLOADS = 60  # seconds
LAST_PORT = 65535
SLIDER_STEP = 1e-3  # as fine as the answer shows a threshold


def build(recognizer: "Recognizer") -> "gradio.Blocks":
    """Builds the page.

    Args:
        recognizer: `Recognizer`; its gallery is the page's.

    Returns:
        `gradio.Blocks`; `.launch()` opens it.

    Raises:
        MissingDependencyError: If Gradio is not installed.

    Example:
    >>> build(ksf.Recognizer()).launch()  # doctest: +SKIP
    """
    gr = require("gradio", "demo")
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEEP_UPLOADS, KEEP_UPLOADS)) as page:
        gr.Markdown(f"# {TITLE}\n{NOTE}")
        with gr.Tab("Verify"):
            _verify_tab(gr, recognizer)
        with gr.Tab("Identify"):
            _identify_tab(gr, recognizer)
    return page


def serve(page: "gradio.Blocks", port: int | None = None, open_browser: bool = False) -> str:
    """Serves the page on this machine only, beside the program that goes on; `page.close()` ends it.

    Args:
        page: As `build` returns it.
        port: Number of the port, 1 to 65535. Defaults to `None`: the first free one from 7860 on.
        open_browser: Whether to open the browser. Defaults to `False`.

    Returns:
        The page's address.

    Raises:
        ValueError: If the port is no such number.
        OSError: If it is taken.
    """
    if port is not None and whole_number("port", port) > LAST_PORT:
        raise ValueError(f"`port` must be at most {LAST_PORT}. Received: port={port!r}")
    try:
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        what = "No port from 7860 on is free" if port is None else f"Port {port} cannot be used: another program has it"
        raise OSError(f"{what}. Choose another (--port)") from error
    return address


def _verify_tab(gr, recognizer):
    with gr.Row():
        photos = [_photo(gr, label=label, elem_id=f"photo{n}") for n, label in enumerate(("One", "Other"), 1)]
    decision = _decision(gr, recognizer)
    button = gr.Button("Compare", elem_id="compare", variant="primary")
    answer = gr.Markdown(elem_id="answer")
    with gr.Row():
        crops = [gr.Image(label="Aligned face", interactive=False) for _ in photos]
    button.click(lambda *inputs: compare(recognizer, *inputs), [*photos, decision], [answer, *crops], api_name=False)


def _identify_tab(gr, recognizer):
    photo = _photo(gr, label="Photo", elem_id="photo")
    name = gr.Textbox(label="Name, to enroll the photo", max_lines=1, elem_id="name")
    decision = _decision(gr, recognizer)
    with gr.Row():
        add, find = gr.Button("Enroll"), gr.Button("Identify", variant="primary")
    answer = gr.Markdown(elem_id="identity")
    add.click(lambda *inputs: enroll(recognizer, *inputs), [name, photo], answer, api_name=False)
    find.click(lambda *inputs: identify(recognizer, *inputs), [photo, decision], answer, api_name=False)


def _photo(gr, **options):
    """A field that gives the bytes of the file as it was uploaded: Gradio would decode it in ways of its own."""
    field = gr.Image(type="filepath", **options)
    # Not by a subclass, for which Gradio would write a file beside this one.
    field.preprocess = lambda upload: upload and read_file(upload.path)
    return field


def _decision(gr, recognizer):
    """A choice among the measured false accept rates, or a slider where the recognizer decides at none of them."""
    known = recognizer.thresholds
    if recognizer.threshold in known.cosines:
        fars = [(f"{far:g}", repr(far)) for far in known.fars]  # what is shown is rounded, what is chosen is not
        label = "False accept rate: share of pairs of strangers that pass"
        return gr.Dropdown(fars, value=repr(known.nearest(recognizer.far)), label=label)
    label = "Threshold (cosine)" + ("" if known else ": this model has no measured false accept rates")
    value = 0.3 if recognizer.threshold is None else recognizer.threshold
    return gr.Slider(-1, 1, value=value, step=SLIDER_STEP, label=label)


def choice(decision: str | float) -> dict[str, float]:
    """Arguments of `Recognizer.verify` for what was chosen: the text of a false accept rate, or a number, the threshold."""
    return {"far": float(decision)} if isinstance(decision, str) else {"threshold": float(decision)}


def compare(
    recognizer: "Recognizer", first: Photo | None, second: Photo | None, decision: str | float
) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """Answers the first tab.

    Args:
        recognizer: `Recognizer`.
        first, second: Photos, as `Recognizer.verify` takes them, or `None`.
        decision: As in `choice`.

    Returns:
        `(markdown, crop, crop)`.
    """
    crops = None, None
    try:
        if first is None or second is None:
            raise ValueError("Give two photos")
        crops = recognizer.photos.crop(first, "the first photo"), recognizer.photos.crop(second, "the second photo")
        result = recognizer.compare(*recognizer.photos.embed_crops(np.stack(crops)), **choice(decision))
    except (ValueError, TypeError, OSError) as error:
        return f"**{error}**", *crops
    verdict = "Same person" if result.match else "Different people"
    limit = f"threshold {result.threshold:.3f}, false accept rate {result.far_words}"
    return f"## {verdict}\nScore {result.score:.3f} ({limit})\n\n{result.rarity}", *crops


def _plain(text):
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


def enroll(recognizer: "Recognizer", name: str, photo: Photo | None) -> str:
    """Adds the photo of the second tab to the gallery; returns Markdown."""
    try:
        if photo is None:
            raise ValueError("Give a photo")
        return _plain(str(recognizer.enroll(name, photo)))
    except (ValueError, TypeError, OSError) as error:
        return f"**{error}**"


def identify(recognizer: "Recognizer", photo: Photo | None, decision: str | float) -> str:
    """Looks the photo of the second tab up; returns Markdown."""
    try:
        if photo is None:
            raise ValueError("Give a photo")
        found = recognizer.identify(photo, **choice(decision))
    except (ValueError, TypeError, OSError) as error:
        return f"**{error}**"
    rows = "\n".join(f"| {_plain(one.name)} | {one.score:.3f} |" for one in found.candidates)
    return f"## {_plain(found.name or 'Nobody of the gallery')}\n\n| nearest | score |\n| --- | --- |\n{rows}"
