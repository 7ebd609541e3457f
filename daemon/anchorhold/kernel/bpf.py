"""Classic BPF for seccomp: an assembler with labels, a disassembler and an interpreter.

Constraint: what is assembled here is the security boundary, so anything doubtful is an error: an unknown
or repeated label, a jump backwards, a program that can run off its end. Conditional jumps reach 255
instructions; a longer one becomes the inverse test over a JA, which reaches everywhere.
Sources: linux/bpf_common.h, linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import errno
import struct

from anchorhold.kernel.errors import KernelError, kernel_error

BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_RET, BPF_MISC = range(8)
BPF_W, BPF_IMM, BPF_ABS, BPF_MEM = 0x00, 0x00, 0x20, 0x60
BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50
BPF_LSH, BPF_RSH, BPF_NEG, BPF_XOR = 0x60, 0x70, 0x80, 0xA0
BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET = 0x00, 0x10, 0x20, 0x30, 0x40
BPF_K, BPF_X, BPF_A = 0x00, 0x08, 0x10
BPF_TAX, BPF_TXA = 0x00, 0x80
BPF_MAXINSNS = 4096
BPF_MEMWORDS = 16

# struct seccomp_data: nr, arch, instruction_pointer, args[6]
OFFSET_NR, OFFSET_ARCH, OFFSET_IP, OFFSET_ARGS, DATA_SIZE = 0, 4, 8, 16, 64

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
_DATA = struct.Struct("=iIQ6Q")
_U32 = 0xFFFFFFFF
_CONDITIONS = {BPF_JEQ: "jeq", BPF_JGT: "jgt", BPF_JGE: "jge", BPF_JSET: "jset"}
_ARITHMETIC = {
    BPF_ADD: "add",
    BPF_SUB: "sub",
    BPF_MUL: "mul",
    BPF_DIV: "div",
    BPF_OR: "or",
    BPF_AND: "and",
    BPF_LSH: "lsh",
    BPF_RSH: "rsh",
    BPF_NEG: "neg",
    BPF_XOR: "xor",
}


def _wrong(subject: str, hint: str) -> KernelError:
    return kernel_error(errno.EINVAL, "bpf", subject, hint)


class Program:
    """A filter being written; each method appends one instruction (a label appends none).

    The tests ``jeq``, ``jset``, ``jge``, ``jgt`` jump to their label when true and fall through when false;
    they compare the 32-bit accumulator as unsigned. Methods return the program, so calls can be chained.
    """

    __slots__ = ("_items", "_labels", "_fresh")

    def __init__(self) -> None:
        self._items: list[tuple[int, int, str]] = []  # code, k, label it jumps to ("" for none)
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def __len__(self) -> int:
        return len(self._items)

    def _add(self, code: int, k: int, label: str = "") -> Program:
        if not 0 <= k <= _U32:
            raise _wrong(f"value {k:#x}", "An operand has 32 bits; split a 64-bit value into two tests")
        self._items.append((code, k, label))
        return self

    def _new_label(self) -> str:
        self._fresh += 1
        return f".{self._fresh}"

    def load(self, offset: int) -> Program:
        """Loads the 32-bit word at ``offset`` of struct seccomp_data."""
        if offset % 4 or not 0 <= offset < DATA_SIZE:
            raise _wrong(f"offset {offset}", "The kernel loads aligned words inside struct seccomp_data only")
        return self._add(BPF_LD | BPF_W | BPF_ABS, offset)

    def load_nr(self) -> Program:
        return self.load(OFFSET_NR)

    def load_arch(self) -> Program:
        return self.load(OFFSET_ARCH)

    def load_arg(self, i: int, high: bool = False) -> Program:
        """Loads the low (or high) half of argument ``i``, 0 to 5. Both machines are little-endian."""
        if not 0 <= i <= 5:
            raise _wrong(f"argument {i}", "A system call has arguments 0 to 5")
        return self.load(OFFSET_ARGS + 8 * i + (4 if high else 0))

    def mask(self, value: int) -> Program:
        """Keeps only the bits of ``value`` in the accumulator."""
        return self._add(BPF_ALU | BPF_AND | BPF_K, value)

    def jeq(self, value: int, label: str) -> Program:
        return self._add(BPF_JMP | BPF_JEQ | BPF_K, value, label)

    def jset(self, value: int, label: str) -> Program:
        return self._add(BPF_JMP | BPF_JSET | BPF_K, value, label)

    def jge(self, value: int, label: str) -> Program:
        return self._add(BPF_JMP | BPF_JGE | BPF_K, value, label)

    def jgt(self, value: int, label: str) -> Program:
        return self._add(BPF_JMP | BPF_JGT | BPF_K, value, label)

    def jump(self, label: str) -> Program:
        return self._add(BPF_JMP | BPF_JA, 0, label)

    def jeq_arg(self, i: int, value: int, label: str) -> Program:
        """Jumps when the whole 64 bits of argument ``i`` equal ``value``; changes the accumulator."""
        value &= 0xFFFFFFFFFFFFFFFF
        differs, halfway = self._new_label(), self._new_label()
        self.load_arg(i, high=True).jeq(value >> 32, halfway).jump(differs)
        return self.label(halfway).load_arg(i).jeq(value & _U32, label).label(differs)

    def ret(self, action: int) -> Program:
        return self._add(BPF_RET | BPF_K, action)

    def label(self, name: str) -> Program:
        if name in self._labels:
            raise _wrong(f"label {name!r}", "It is defined twice; give each place its own name")
        self._labels[name] = len(self._items)
        return self

    def assemble(self) -> bytes:
        """The program as an array of struct sock_filter. Raises KernelError (EINVAL) naming what is wrong."""
        items, labels = self._items, self._labels
        if not items or items[-1][0] != BPF_RET | BPF_K:
            raise _wrong("end of program", "The last instruction must be ret(), or a call could run past it")
        for index, (_, _, label) in enumerate(items):
            if label and label not in labels:
                raise _wrong(f"label {label!r}", "A jump names it but nothing defines it")
            if label and labels[label] <= index:
                raise _wrong(f"label {label!r}", "It lies before a jump to it; BPF only jumps forward")
            if label and labels[label] == len(items):
                raise _wrong(f"label {label!r}", "It lies at the end with no instruction behind it")
        long: set[int] = set()
        while True:  # each round only lengthens jumps, so this ends
            where, address = [], 0
            for index in range(len(items)):
                where.append(address)
                address += 2 if index in long else 1
            far = {
                index
                for index, (code, _, label) in enumerate(items)
                if label
                and code != BPF_JMP | BPF_JA
                and index not in long
                and where[labels[label]] - where[index] - 1 > 255
            }
            if not far:
                break
            long |= far
        if address > BPF_MAXINSNS:
            raise _wrong(
                f"{address} instructions", f"The kernel takes {BPF_MAXINSNS}; write a shorter filter"
            )
        out = bytearray()
        for index, (code, k, label) in enumerate(items):
            distance = where[labels[label]] - where[index] - 1 if label else 0
            if code == BPF_JMP | BPF_JA:
                out += _INSTRUCTION.pack(code, 0, 0, distance)
            elif index in long:
                out += _INSTRUCTION.pack(code, 0, 1, k)
                out += _INSTRUCTION.pack(BPF_JMP | BPF_JA, 0, 0, distance - 1)
            else:
                out += _INSTRUCTION.pack(code, distance, 0, k)
        return bytes(out)


def pack_data(nr: int, arch: int, args: tuple[int, ...] = (), instruction_pointer: int = 0) -> bytes:
    """A struct seccomp_data as the filter would see it; for ``simulate``."""
    padded = [arg & 0xFFFFFFFFFFFFFFFF for arg in args] + [0] * (6 - len(args))
    signed = (nr & _U32) - 2**32 if nr & 0x80000000 else nr & _U32
    return _DATA.pack(signed, arch, instruction_pointer, *padded)


def _alu(operation: int, a: int, b: int) -> int:
    if operation == BPF_ADD:
        return a + b & _U32
    if operation == BPF_SUB:
        return a - b & _U32
    if operation == BPF_MUL:
        return a * b & _U32
    if operation == BPF_DIV:
        return a // b
    if operation == BPF_OR:
        return a | b
    if operation == BPF_AND:
        return a & b
    if operation == BPF_LSH:
        return a << (b & 31) & _U32
    if operation == BPF_RSH:
        return a >> (b & 31)
    if operation == BPF_XOR:
        return a ^ b
    return -a & _U32  # BPF_NEG, the only one left: the caller looked it up


def _holds(condition: int, a: int, b: int) -> bool:
    if condition == BPF_JEQ:
        return a == b
    if condition == BPF_JGT:
        return a > b
    if condition == BPF_JGE:
        return a >= b
    return bool(a & b)


def simulate(program: bytes, seccomp_data: bytes) -> int:
    """What the kernel would return for ``seccomp_data``: the full 32-bit action.

    Raises KernelError (EINVAL) where the kernel would have refused to load the program.
    """
    if len(program) % _INSTRUCTION.size or not program:
        raise _wrong(f"{len(program)} bytes", "A program is one or more instructions of 8 bytes")
    code_at = list(_INSTRUCTION.iter_unpack(program))
    a = x = 0
    memory = [0] * BPF_MEMWORDS
    pc = 0
    while pc < len(code_at):
        code, jt, jf, k = code_at[pc]
        pc += 1
        kind = code & 7
        operand = x if code & BPF_X else k
        if code == BPF_RET | BPF_K:
            return int(k)
        if code == BPF_RET | BPF_A:
            return a
        if code == BPF_LD | BPF_W | BPF_ABS and k % 4 == 0 and k < DATA_SIZE:
            a = int.from_bytes(seccomp_data[k : k + 4], "little")
        elif code == BPF_LD | BPF_IMM:
            a = k
        elif code == BPF_LDX | BPF_IMM:
            x = k
        elif kind in (BPF_LD, BPF_LDX, BPF_ST, BPF_STX) and k < BPF_MEMWORDS:
            if code == BPF_LD | BPF_MEM:
                a = memory[k]
            elif code == BPF_LDX | BPF_MEM:
                x = memory[k]
            elif code == BPF_ST:
                memory[k] = a
            elif code == BPF_STX:
                memory[k] = x
            else:
                raise _wrong(f"instruction {pc - 1}", f"Code {code:#x} is not allowed in a seccomp filter")
        elif code == BPF_MISC | BPF_TAX:
            x = a
        elif code == BPF_MISC | BPF_TXA:
            a = x
        elif kind == BPF_ALU and code & 0xF0 in _ARITHMETIC:
            if code & 0xF0 == BPF_DIV and operand == 0:
                return 0  # the kernel ends the program; 0 is SECCOMP_RET_KILL_THREAD
            a = _alu(code & 0xF0, a, operand)
        elif code == BPF_JMP | BPF_JA:
            pc += k
        elif kind == BPF_JMP and code & 0xF0 in _CONDITIONS:
            pc += jt if _holds(code & 0xF0, a, operand) else jf
        else:
            raise _wrong(f"instruction {pc - 1}", f"Code {code:#x} is not allowed in a seccomp filter")
    raise _wrong("end of program", "It ran past its last instruction")


def disassemble(program: bytes) -> list[str]:
    """One line an instruction, jumps with absolute targets; for people."""
    lines = []
    for index, (code, jt, jf, k) in enumerate(_INSTRUCTION.iter_unpack(program)):
        operand = "x" if code & BPF_X else f"{k:#x}"
        if code == BPF_LD | BPF_W | BPF_ABS:
            text = f"load [{k}]"
        elif code == BPF_RET | BPF_K:
            text = f"ret {k:#010x}"
        elif code == BPF_JMP | BPF_JA:
            text = f"ja {index + 1 + k}"
        elif code & 7 == BPF_JMP and code & 0xF0 in _CONDITIONS:
            text = f"{_CONDITIONS[code & 0xF0]} {operand} ? {index + 1 + jt} : {index + 1 + jf}"
        elif code & 7 == BPF_ALU and code & 0xF0 in _ARITHMETIC:
            text = f"{_ARITHMETIC[code & 0xF0]} {operand}"
        else:
            text = f"code {code:#04x} {k:#x}"
        lines.append(f"{index:4} {text}")
    return lines
