"""Open a page in the browser: two photos in, the answer out; and a small gallery.

  keras-sphereface demo
  keras-sphereface demo --model my.keras --gallery people.db --port 7860

The page is served on this machine only, and photos are not kept. Needs the extra [demo]. Stop it with Ctrl-C, or as
systemd and `docker stop` do, by SIGTERM: either way the copies of uploads are deleted.
"""

import argparse
import signal

from keras_sphereface import demo
from keras_sphereface.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--gallery", help="a gallery's file; made if absent (default: in memory, gone at the end)")
    parser.add_argument("--port", type=_port, default=7860, help="default: %(default)s")
    parser.add_argument("--browser", action="store_true", help="open the browser")
    options.add_model(parser)
    options.add_faces(parser)
    options.add_decision(parser)


def _port(text):
    number = options.positive(text)
    if number > demo.LAST_PORT:
        raise argparse.ArgumentTypeError(f"expected a port, 1..{demo.LAST_PORT}. Received: {text}")
    return number


def run(args: argparse.Namespace) -> None:
    """Serves the page until it is stopped."""
    page = demo.build(options.make_recognizer(args, gallery=args.gallery))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the page is closed, and deletes the uploads
    # Gradio's own lines offer a public link, which is not wanted here.
    address = demo.serve(page, args.port, args.browser)
    print(f"The page is at {address}, for this machine only. Stop it with Ctrl-C.", flush=True)
    page.block_thread()
