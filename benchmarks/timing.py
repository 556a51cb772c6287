"""What the benchmarks share: two things timed in turn, and the line that is printed of them."""

import json
import os
import statistics
import time


def in_turn(functions, rounds=5, warmups=1, before=None):
    """Times functions one after the other, round by round, so that a change of the machine's load meets all of them.

    Args:
        functions: Dictionary from name to a function without arguments.
        rounds: Times that each is run. Defaults to `5`.
        warmups: Runs before, which do not count. Defaults to `1`.
        before: Dictionary from name to a function that is called before each run, outside its time. Defaults to `None`.

    Returns:
        Dictionary from name to the median seconds.
    """
    seconds = {name: [] for name in functions}
    for number in range(warmups + rounds):
        for name, function in functions.items():
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            function()
            if number >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(what, floor, ours, **more):
    """Prints floor, ours and ratio in words, and as a line of JSON.

    Args:
        what: Name of the measurement.
        floor: Seconds of what cannot be avoided, or of the other program.
        ours: Seconds of ours.
        **more: Further figures for the line of JSON.
    """
    ratio = ours / floor
    print(f"{what}: floor {floor:.4g} s, ours {ours:.4g} s, ratio {ratio:.2f}", flush=True)
    line = {"what": what, "floor_s": round(floor, 5), "ours_s": round(ours, 5), "ratio": round(ratio, 3), **more}
    print(json.dumps({**line, "load_average": round(os.getloadavg()[0], 1)}), flush=True)
