"""Starts the command `keras-sphereface`.

A module beside the package, not in it: `import keras_sphereface` imports Keras, and with it TensorFlow, which takes seconds.
Where the package finds this module imported, it leaves that to the command: `--help` and wrong arguments need not wait.
"""


def main():
    """Runs the command line; returns the exit code."""
    from keras_sphereface import cli

    return cli.main()
