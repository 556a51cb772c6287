"""A reader for the pickle inside a `.bin` pair file that runs nothing the file asks for.

The file is `pickle.dump((images, is_same), ...)`: encoded images (or arrays) and booleans. Python's unpickler would call any
function such a file names. This one is an interpreter of its own for the few instructions that these files use: the
names they may mention stand for the constructors below, any other name is refused, and the images are kept as
places in the file, so that memory stays small whatever the lengths in it claim.
"""

import pickletools

from keras_sphereface.data.bin_values import CONSTRUCTORS, MAX_TEXT, Blob, Dtype, LazyArray, Name, read_text
from keras_sphereface.errors import FileFormatError, one_line

# How many bytes of length stand between an opcode and its content.
_LENGTH_BYTES = {
    "SHORT_BINBYTES": 1,
    "BINBYTES": 4,
    "BINBYTES8": 8,
    "BYTEARRAY8": 8,
    "SHORT_BINSTRING": 1,
    "BINSTRING": 4,
    "SHORT_BINUNICODE": 1,
    "BINUNICODE": 4,
    "BINUNICODE8": 8,
}
# 3 for an image that is encoded, 15 for an array: a pair file of 140,000 images at least. Each may take 100 bytes of memory.
MOST_INSTRUCTIONS = 2**21
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1", "INT")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_FROMBUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_GLOBALS = {
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytearray"): "bytearray",
    ("builtins", "bytearray"): "bytearray",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    **{(module, "_reconstruct"): "reconstruct" for module in _ARRAY_MODULES},
    **{(module, "scalar"): "scalar" for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): "frombuffer" for module in _FROMBUFFER_MODULES},
}


def load_bin_pickle(file):
    """Reads the top-level object of a `.bin` file.

    Args:
        file: A `BinFile`, which must stay open for as long as the object's content is asked for.

    Returns:
        The object, made of tuples, lists, numbers, booleans, `Blob` and `LazyArray`.

    Raises:
        FileFormatError: If the file is truncated, names another global than these files need, or uses an
            instruction they do not need. Nothing the file names is ever imported or called.
    """
    path = file.path
    if not file.size:
        raise FileFormatError(f"{path}: holds no bytes, expected a pickled (images, is_same). Get the file again.")
    machine = _Machine(file)
    position = 0
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            if number >= MOST_INSTRUCTIONS:
                raise _Refused(
                    f"more than {MOST_INSTRUCTIONS} instructions, more than a pair file needs. Divide it into several"
                )
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument, position)
    except _Refused as error:
        raise FileFormatError(f"{path}: byte {position}: {error}") from None
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise FileFormatError(
            f"{path}: byte {position}: truncated or not a pair file ({one_line(error)}). Expected a pickled "
            "(images, is_same) of protocol 2 or later; get the file again or write it anew with "
            "keras_sphereface.data.write_bin."
        ) from error
    raise FileFormatError(f"{path}: ends without its last instruction. The file is truncated; get it again.")


class _Refused(Exception):
    """The file asks for something that no pair file needs."""


_MARK = object()


class _Machine:
    """Stack and memo of one file; every instruction is a method or an entry of the tables above."""

    def __init__(self, file):
        self.file = file
        self.stack = []
        self.memo = {}

    def pop(self):
        return self.stack.pop()

    def step(self, name, argument, position):
        if name in _LENGTH_BYTES:
            self._push_blob(name, position)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _INTEGERS:
            self.stack.append(argument)
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = self.stack[len(self.stack) - size :] if size else []
            if len(items) != size or _MARK in items:
                raise ValueError("a tuple of more items than there are")
            self.stack[len(self.stack) - size :] = [tuple(items)]
        else:
            method = getattr(self, f"_op_{name.lower()}", None)
            if method is None:
                raise _Refused(
                    f"instruction {name} ({repr(argument)[:40]}) is refused: a pair file does not need it. "
                    "Check that it is a .bin pair file, or get it again."
                )
            method(argument)

    def _push_blob(self, name, position):
        size = _LENGTH_BYTES[name]
        length = int.from_bytes(self.file.read_at(position + 1, size), "little")
        self.stack.append(Blob(self.file, position + 1 + size, length, text="UNICODE" in name))

    def _op_proto(self, argument):
        pass

    def _op_frame(self, argument):
        pass

    def _op_mark(self, argument):
        self.stack.append(_MARK)

    def _op_empty_list(self, argument):
        self.stack.append([])

    def _op_tuple(self, argument):
        self.stack.append(tuple(self._to_mark()))

    def _op_list(self, argument):
        self.stack.append(self._to_mark())

    def _op_append(self, argument):
        item = self.pop()
        self._list_on_top().append(item)

    def _op_appends(self, argument):
        items = self._to_mark()
        self._list_on_top().extend(items)

    def _op_memoize(self, argument):
        self.memo[len(self.memo)] = self.stack[-1]

    def _op_binput(self, argument):
        self.memo[argument] = self.stack[-1]

    _op_long_binput = _op_put = _op_binput

    def _op_binget(self, argument):
        self.stack.append(self.memo[argument])

    _op_long_binget = _op_get = _op_binget

    def _op_global(self, argument):
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _op_stack_global(self, argument):
        name, module = self.pop(), self.pop()
        self._push_global(read_text(module), read_text(name))

    def _op_inst(self, argument):
        raise _Refused(_refusal(*argument.partition(" ")[::2]))

    def _push_global(self, module, name):
        if (module, name) not in _GLOBALS:
            raise _Refused(_refusal(module, name))
        self.stack.append(Name(_GLOBALS[module, name]))

    def _op_reduce(self, argument):
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is not an admitted constructor")
        self.stack.append(CONSTRUCTORS[function.word](*arguments))

    def _op_build(self, argument):
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, LazyArray):
            _, shape, dtype, fortran, data = state
            target.fill(shape, dtype, data, "F" if fortran else "C")
        elif not isinstance(target, Dtype):
            raise ValueError("a state for something that is neither an array nor a dtype")
        elif read_text(state[1]) not in ("|", "<"):
            raise ValueError("numbers in big-endian order")

    def _to_mark(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise ValueError("no start of a list or tuple")

    def _list_on_top(self):
        if not isinstance(self.stack[-1], list):
            raise ValueError("items for something that is not a list")
        return self.stack[-1]


def _refusal(module, name):
    return (
        f"global '{module[:MAX_TEXT]}.{name[:MAX_TEXT]}' is refused: a pair file needs only arrays and bytes. "
        "It may be an attack; get the file from a source you trust."
    )
