"""Writes the table of all presets: `python -m keras_sphereface.presets > zoo/README.md`."""

import sys

from keras_sphereface.presets.overview import render

if __name__ == "__main__":
    sys.stdout.write(render())
