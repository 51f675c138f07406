"""What a pickle of tensors would make, told without making it.

A pickle is a program. This reader knows the few instructions that plain tensors, numbers, texts
and containers of them need; it calls nothing that a file names, and refuses everything else.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sized
from dataclasses import dataclass
from io import BytesIO
from typing import Any

LONGEST_PICKLE = 2_000_000  # Bytes; those of four networks with both optimisers have 300,000.
NEWEST_PROTOCOL = 5
LONGEST_IDENTITY = 6  # Before torch 1.6 a storage's had a view, of which nothing is left but None.
MOST_SIZES = 64  # Torch itself has no tensors of more.
# Items of containers that are copied from others: a few bytes can ask for a long one's copy again.
MOST_COPIED = LONGEST_PICKLE
STORAGE_DTYPES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32",
    "LongStorage": "I64", "BoolStorage": "BOOL",
}  # fmt: skip
CONTAINERS = ("collections OrderedDict", "__builtin__ dict", "builtins dict")
PLAIN_VALUES = ("torch Size", "torch device")
PARAMETER_MAKER = "torch._utils _rebuild_parameter"
# What may be called, and with how many arguments. Some are of no use here (whether a gradient is
# wanted, hooks), but torch cannot do without them.
CALLS = {
    **dict.fromkeys(CONTAINERS, (0, 1)), "torch Size": (1,), "torch device": (1, 2),
    "torch._utils _rebuild_tensor_v2": (6, 7), "torch._utils _rebuild_tensor": (4,),
    PARAMETER_MAKER: (3,),
}  # fmt: skip


class CodeInPickleError(Exception):
    """The pickle names something that is neither a tensor nor a plain value."""


@dataclass(frozen=True)
class Storage:
    """Numbers that tensors are views of: what a persistent id of torch says."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; all four are checked by whoever knows the storages' bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """Something that the pickle names, ``module attribute``; one that is allowed."""

    text: str


class Mark:
    """Where on the stack a group of values begins."""


MARK = Mark()


def read_pickle(stream: BytesIO) -> Any:
    """Read one pickle from where the stream stands; it is left behind the pickle.

    Returns:
        Dicts, lists, tuples, plain values and :class:`StoredTensor`.

    Raises:
        CodeInPickleError: It names something that would have to be called or imported.
        ValueError: It is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except CodeInPickleError:
        raise
    except Exception as error:
        # Hostile arguments make pickletools and the stack raise whatever they stumble over.
        raise ValueError("a damaged pickle") from error
    raise ValueError("a pickle without an end")


class _Machine:
    """The stack and the memory that pickles are programs for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.copied = 0

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode]())
        elif opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in ("PROTO", "FRAME"):
            if opcode == "PROTO" and argument > NEWEST_PROTOCOL:
                raise ValueError("an unknown protocol")
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memory[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memory[len(self.memory)] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memory[argument])
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(_allowed(argument if opcode == "GLOBAL" else self._named()))
        elif opcode in ACTIONS:
            ACTIONS[opcode](self)
        else:
            raise CodeInPickleError(f"the instruction {opcode}")

    def _named(self) -> str:
        module, attribute = self._pop(2)
        return f"{module} {attribute}"

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("an empty stack")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def make_tuple(self) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def make_list(self) -> None:
        self.stack.append(self._pop_to_mark())

    def make_dict(self) -> None:
        values = self._pop_to_mark()
        self.stack.append({})
        self._set_items(values)

    def set_items(self) -> None:
        self._set_items(self._pop_to_mark())

    def set_item(self) -> None:
        self._set_items(self._pop(2))

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, (str, int, float)):
                raise ValueError("keys that are neither texts nor numbers")
            target[key] = value

    def append(self) -> None:
        self._append(self._pop(1))

    def appends(self) -> None:
        self._append(self._pop_to_mark())

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("only lists are appended to")
        target.extend(values)

    def build(self) -> None:
        # What a dict has besides its items: torch's state_dict notes versions there.
        _, state = self.stack[-2], self.stack.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise CodeInPickleError("an object with a state")

    def load_storage(self) -> None:
        identity = self.stack.pop()
        if not isinstance(identity, tuple) or len(identity) > LONGEST_IDENTITY:
            raise ValueError("an unknown persistent id")
        kind, storage, key, _, count, *view = identity
        if kind != "storage" or not isinstance(storage, Name) or any(v is not None for v in view):
            raise ValueError("an unknown persistent id")
        dtype = STORAGE_DTYPES[storage.text.removeprefix("torch ")]
        if type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a storage without a key or size")
        self.stack.append(Storage(dtype, key, count))

    def call(self) -> None:
        """Stands in for the call of one of the allowed names."""
        name, arguments = self._pop(2)
        if not isinstance(name, Name):
            raise CodeInPickleError("a call")
        if name.text not in CALLS:
            raise CodeInPickleError(name.text.replace(" ", "."))
        if not isinstance(arguments, tuple) or len(arguments) not in CALLS[name.text]:
            raise ValueError("a call of other arguments")
        self.copied += sum(len(one) for one in arguments if isinstance(one, Sized))
        if self.copied > MOST_COPIED:
            raise ValueError("the same values again and again")
        self.stack.append(_made(name.text, arguments))


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What one of the allowed calls stands for."""
    if name in CONTAINERS:
        return dict(*arguments)
    if name in PLAIN_VALUES:
        return arguments
    if name == PARAMETER_MAKER:
        if not isinstance(arguments[0], StoredTensor):
            raise ValueError("a parameter without a tensor")
        return arguments[0]
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if max(len(shape), len(stride)) > MOST_SIZES:
        raise ValueError("a tensor of too many sizes")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _allowed(text: str) -> Name:
    module, _, attribute = text.partition(" ")
    if text in CALLS or (module == "torch" and attribute in STORAGE_DTYPES):
        return Name(text)
    raise CodeInPickleError(f"{module}.{attribute}")


CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: MARK, "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
LITERALS = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
        "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    }
)  # fmt: skip
ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine: machine.stack.append(tuple(machine._pop(1))),
    "TUPLE2": lambda machine: machine.stack.append(tuple(machine._pop(2))),
    "TUPLE3": lambda machine: machine.stack.append(tuple(machine._pop(3))),
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.load_storage,
    "REDUCE": _Machine.call,
}
