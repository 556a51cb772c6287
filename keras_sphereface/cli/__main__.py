"""Allows `python -m keras_sphereface.cli`."""

import sys

from keras_sphereface.cli import main

sys.exit(main())
