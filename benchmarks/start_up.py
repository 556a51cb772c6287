"""Seconds that `import keras_sphereface` takes over `import keras`, and that `load_pretrained()` takes after it.

    python benchmarks/start_up.py

Each is a fresh Python; the two imports run in turn.
"""

import argparse
import subprocess
import sys

import timing

IMPORT_KERAS = "import keras"
IMPORT_OURS = "import keras; import keras_sphereface"
LOAD = "import time, keras, keras_sphereface as k; s = time.time(); k.load_pretrained(); print(time.time() - s)"


def run(code):
    """Runs code in a fresh Python; returns what it printed."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    seconds = timing.in_turn({code: lambda code=code: run(code) for code in (IMPORT_KERAS, IMPORT_OURS)}, args.rounds)
    keras, ours = seconds[IMPORT_KERAS], seconds[IMPORT_OURS]
    timing.report("import keras_sphereface beside import keras", keras, ours, over_s=round(ours - keras, 3))
    try:
        loads = sorted(float(run(LOAD)) for _ in range(args.rounds))
        print(f"load_pretrained() after the imports: {loads[len(loads) // 2]:.2f} s")
    except subprocess.CalledProcessError as error:
        print(f"load_pretrained(): {error.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
