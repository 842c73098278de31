"""A pickle reader that cannot run code and cannot be made to allocate more than the file holds.

Python's own unpickler calls whatever a stream names and believes the lengths it states. This one
knows only the instructions that checkpoints need, resolves names through a caller's allow-list of
pure stand-ins, and hands out byte strings as views into the file. Everything else is refused.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from my3dgen.errors import FileFormatError, UnsafePickleError

MAX_OPERATIONS = 400_000  # an EG3D snapshot of three networks has about 50,000
MAX_TEXT_BYTES = 64 << 20
MAX_INTEGER_BYTES = 32

U8, U16, U32, U64 = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q"))
I32, F64 = struct.Struct("<i"), struct.Struct(">d")

PLAIN_KEYS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Global:
    """An allowed name and the pure function that stands in for it (None: it can't be called)."""

    name: str
    call: Callable[..., Any] | None = None


@dataclass(slots=True)
class Record:
    """What is left of an object: its class's name and its state. It has no behaviour."""

    class_name: str
    state: dict[str, Any]

    def absorb(self, state: Any) -> None:
        """Take the state that the stream would have given to `__setstate__` or `__dict__`."""
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0]
        if type(state) is dict:
            self.state.update(state)
        elif state is not None:
            raise FileFormatError(f"the state of {self.class_name} is not a dictionary")


@dataclass
class Budget:
    """What all streams of one file may use together."""

    operations: int = MAX_OPERATIONS
    text_bytes: int = MAX_TEXT_BYTES


class _Mark:
    pass


MARK = _Mark()


def read_pickle(
    data: memoryview,
    find_global: Callable[[str, str], Any],
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> tuple[Any, int]:
    """Read one pickle as inert data; return the value and the position after it.

    `find_global(module, name)` returns the stand-in (a `Global` if it may be called) or raises
    UnsafePickleError; `persistent` resolves persistent ids. Byte strings come back as read-only
    views of `data`. Raises FileFormatError (truncated or malformed) or UnsafePickleError (asks for
    something outside the allow-list, or for more than `budget`).
    """
    machine = _Machine(data, start, find_global, persistent, budget or Budget())
    return machine.run(), machine.position


class _Machine:
    """The pickle virtual machine, opcodes of protocols 2 to 5 only."""

    def __init__(self, data, start, find_global, persistent, budget):
        self.data, self.position = data, start
        self.find_global, self.persistent, self.budget = find_global, persistent, budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            self.budget.operations -= 1
            if self.budget.operations < 0:
                raise UnsafePickleError(f"has more than {MAX_OPERATIONS} pickle instructions")
            if self.position >= len(self.data):
                raise FileFormatError("is truncated: the pickle does not end")
            code = self.data[self.position]
            self.position += 1
            if code == 0x2E:  # STOP
                if len(self.stack) != 1:
                    raise FileFormatError("the pickle ends with a malformed stack")
                return self.pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                raise UnsafePickleError(f"uses the pickle instruction 0x{code:02x}, which is not allowed")
            operation(self)

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise FileFormatError(f"is truncated: {count} bytes are announced at byte {self.position}")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, layout: struct.Struct) -> Any:
        start, self.position = self.position, self.position + layout.size
        if self.position > len(self.data):
            raise FileFormatError(f"is truncated: a number is announced at byte {start}")
        return layout.unpack_from(self.data, start)[0]

    def charge(self, count: int) -> None:
        self.budget.text_bytes -= count
        if self.budget.text_bytes < 0:
            raise UnsafePickleError(f"holds more than {MAX_TEXT_BYTES >> 20} MiB of text")

    def text(self, count: int) -> str:
        self.charge(count)
        try:
            return str(self.take(count), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise FileFormatError("has text that is not UTF-8") from None

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + 256])
        end = window.find(b"\n")
        if end < 0:
            raise FileFormatError("has a name without an end")
        return self.text(end + 1)[:-1]

    def integer(self, count: int) -> int:
        if not 0 <= count <= MAX_INTEGER_BYTES:
            raise UnsafePickleError(f"has an integer of {count} bytes")
        return int.from_bytes(self.take(count), "little", signed=True)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise FileFormatError("the pickle takes from an empty stack")
        return self.stack.pop()

    def peek(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise FileFormatError(f"the pickle adds to something that is not a {kind.__name__}")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise FileFormatError("the pickle closes a group that it did not open")

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise FileFormatError(f"the pickle refers to object {index}, which it did not define")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        if not self.stack:
            raise FileFormatError("the pickle stores from an empty stack")
        self.memo[index] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, items: list[Any]) -> None:
        self.peek(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.peek(set).update(map(plain_key, items))

    def frozen(self) -> None:
        self.stack.append(frozenset(map(plain_key, self.pop_to_mark())))

    def assign(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise FileFormatError("the pickle has a key without a value")
        target = self.peek(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def assign_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.assign([key, value])

    def append_one(self) -> None:
        item = self.pop()
        self.append([item])

    def resolve(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise FileFormatError("the pickle names a global with something that is not text")
        self.stack.append(self.find_global(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.resolve(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.call is None:
            raise UnsafePickleError(f"calls {shown(function)}, which is not on the allow-list")
        if not isinstance(arguments, tuple):
            raise FileFormatError(f"calls {function.name} without an argument tuple")
        try:
            made = function.call(*arguments)
        except (TypeError, ValueError, AttributeError, LookupError):
            raise FileFormatError(f"calls {function.name} with arguments it does not take") from None
        if isinstance(made, memoryview):  # bytes made of text, not a view of the file
            self.charge(len(made))
        self.stack.append(made)

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if type(target) is dict:  # attributes of an OrderedDict, such as a state dict's _metadata
            return
        absorb = getattr(target, "absorb", None)
        if absorb is None:
            raise UnsafePickleError(f"sets the state of {shown(target)}, which is not on the allow-list")
        absorb(state)

    def persistent_id(self) -> None:
        identity = self.pop()
        if self.persistent is None:
            raise UnsafePickleError("refers to data outside the pickle")
        self.stack.append(self.persistent(identity))

    def protocol(self) -> None:
        version = self.number(U8)
        if not 2 <= version <= 5:
            raise UnsafePickleError(f"uses pickle protocol {version}; 2 to 5 are read")

    def frame(self) -> None:
        length = self.number(U64)
        if length > len(self.data) - self.position:
            raise FileFormatError(f"is truncated: a frame of {length} bytes is announced")


def plain_key(key: Any) -> Any:
    """Keys must be scalars: hashing nested tuples can take time exponential in the file's size."""
    if type(key) not in PLAIN_KEYS:
        raise FileFormatError(f"has a dictionary key or set entry of type {type(key).__name__}")
    return key


def one_line(text: object) -> str:
    """A message with a stranger's words in it, safe to print: one line of printable characters."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:500])


def shown(value: Any) -> str:
    """A short, one-line name of a value for error messages."""
    return value.name if isinstance(value, Global) else f"a {type(value).__name__}"


OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("("): lambda m: m.stack.append(MARK),
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_to_mark,
    # scalars
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("K"): lambda m: m.stack.append(m.number(U8)),
    ord("M"): lambda m: m.stack.append(m.number(U16)),
    ord("J"): lambda m: m.stack.append(m.number(I32)),
    0x8A: lambda m: m.stack.append(m.integer(m.number(U8))),
    0x8B: lambda m: m.stack.append(m.integer(m.number(I32))),
    ord("G"): lambda m: m.stack.append(m.number(F64)),
    # text and bytes
    0x8C: lambda m: m.stack.append(m.text(m.number(U8))),
    ord("X"): lambda m: m.stack.append(m.text(m.number(U32))),
    0x8D: lambda m: m.stack.append(m.text(m.number(U64))),
    ord("C"): lambda m: m.stack.append(m.take(m.number(U8))),
    ord("B"): lambda m: m.stack.append(m.take(m.number(U32))),
    0x8E: lambda m: m.stack.append(m.take(m.number(U64))),
    0x96: lambda m: m.stack.append(m.take(m.number(U64))),
    # containers
    ord(")"): lambda m: m.stack.append(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.stack.append(tuple(m.pop_to_mark())),
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): _Machine.append_one,
    ord("e"): lambda m: m.append(m.pop_to_mark()),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): _Machine.assign_one,
    ord("u"): lambda m: m.assign(m.pop_to_mark()),
    0x8F: lambda m: m.stack.append(set()),
    0x90: lambda m: m.add(m.pop_to_mark()),
    0x91: _Machine.frozen,
    # memo
    0x94: lambda m: m.put(len(m.memo)),
    ord("q"): lambda m: m.put(m.number(U8)),
    ord("r"): lambda m: m.put(m.number(U32)),
    ord("h"): lambda m: m.get(m.number(U8)),
    ord("j"): lambda m: m.get(m.number(U32)),
    # names and calls
    ord("c"): lambda m: m.resolve(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.persistent_id,
}
