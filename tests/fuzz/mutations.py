"""Hypothesis strategies that change a sound file a little: most of what breaks readers is almost right."""

import json

from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 7, 127, 255, 65535, 500_000_000, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
TOKENS = (
    "", "0", "1", "-1", "2", "99", "1.5", "1e999", "nan", "inf", "9" * 9, "9" * 40, "a", "../../secret.png", "/etc/passwd",
    "..", "\0", "\u0661", "\ufeff", "\r\n", "\n\n", "a" * 5000, '"', "1,2,3", "[" * 3000,
)  # fmt: skip
VALUES = (
    None, True, 0, -1, 1.5, 10**9, 10**30, float("nan"), "", "Lambda", "../../secret.png", "keras.layers", "builtins",
    "keras_sphereface>x", [], {}, [[]], [1, 2], {"class_name": "Lambda", "module": "keras.layers", "config": {}},
    {"class_name": "function", "module": "os", "config": "system"}, {"class_name": "__lambda__", "config": "x"}, "float99",
)  # fmt: skip


@st.composite
def _changed_bytes(draw, content):
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["number", "byte", "insert", "delete", "cut", "repeat"]))
        if kind == "number":
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
            content[place : place + size] = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
        elif kind == "byte":
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "delete":
            del content[place : place + draw(st.integers(1, 32))]
        elif kind == "cut":
            del content[place:]
        else:
            content[place:place] = content[place : place + draw(st.integers(1, 64))]
    return bytes(content)


@st.composite
def _changed_text(draw, content):
    lines = content.decode().splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        kind = draw(st.sampled_from(["token", "line", "double", "delete", "join"]))
        if not lines:
            break
        if kind == "token":
            separator = draw(st.sampled_from(["\t", " ", ",", '"']))
            parts = lines[place].split(separator)
            parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(TOKENS) | st.text(max_size=8))
            lines[place] = separator.join(parts)
        elif kind == "line":
            lines[place] = draw(st.text(max_size=40)) + "\n"
        elif kind == "double":
            lines.insert(place, lines[place])
        elif kind == "delete":
            del lines[place]
        else:
            lines[place] = lines[place].rstrip("\n")
    return "".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def _changed_json(draw, content):
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        node, key = draw(st.sampled_from(_places(value)))
        kind = draw(st.sampled_from(["replace", "delete", "nest"]))
        if kind == "replace" or isinstance(node, list):
            node[key] = draw(st.sampled_from(VALUES))
        elif kind == "delete":
            node.pop(key, None)
        else:
            node[key] = {"x": [node[key]]}
    # Default values are shared between examples: a copy by way of the text keeps them as they are.
    return json.dumps(value).encode()


def _places(value):
    found, pending = [], [value]
    while pending:
        node = pending.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            found.append((node, key))
            pending.append(child)
    return found or [([None], 0)]


def changed(content, kind):
    """Files that are `content` with a few changes, or, now and then, anything.

    Args:
        content: Bytes of a sound file.
        kind: `"bytes"`, `"text"` or `"json"`.
    """
    near = {"bytes": _changed_bytes, "text": _changed_text, "json": _changed_json}[kind](content)
    return st.one_of(near, near, near, _changed_bytes(content), st.binary(max_size=200))
