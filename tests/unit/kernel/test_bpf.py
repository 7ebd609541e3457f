from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from anchorhold.kernel import bpf, libc, prctl, seccomp
from anchorhold.kernel.errors import KernelError
from anchorhold.kernel.syscalls import AUDIT_ARCH, AUDIT_ARCH_X86_64, NR, X32_SYSCALL_BIT

ALLOW, KILL, ERRNO = seccomp.SECCOMP_RET_ALLOW, seccomp.SECCOMP_RET_KILL_PROCESS, seccomp.SECCOMP_RET_ERRNO


def run(program: bpf.Program | bytes, nr: int = 0, args: tuple[int, ...] = (), arch: int = AUDIT_ARCH) -> int:
    code = program if isinstance(program, bytes) else program.assemble()
    return bpf.simulate(code, bpf.pack_data(nr, arch, args))


def raw(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def test_jeq_takes_its_label_when_equal_and_falls_through_else() -> None:
    program = bpf.Program().load_nr().jeq(7, "hit").ret(ALLOW).label("hit").ret(KILL)
    assert (run(program, 7), run(program, 8)) == (KILL, ALLOW)


@pytest.mark.parametrize(
    ("method", "true", "false"),
    [
        ("jeq", [16], [15, 17]),
        ("jgt", [17, 2**31], [15, 16]),
        ("jge", [16, 2**31], [15]),
        ("jset", [16, 17], [15]),
    ],
)
def test_each_comparison_as_unsigned(method: str, true: list[int], false: list[int]) -> None:
    program = bpf.Program().load_arg(0)
    getattr(program, method)(16, "hit")
    program.ret(ALLOW).label("hit").ret(KILL)
    assert [run(program, args=(value,)) for value in true] == [KILL] * len(true)
    assert [run(program, args=(value,)) for value in false] == [ALLOW] * len(false)


def test_the_architecture_and_both_halves_of_an_argument_can_be_loaded() -> None:
    arch = bpf.Program().load_arch().jeq(AUDIT_ARCH_X86_64, "x").ret(KILL).label("x").ret(ALLOW)
    assert run(arch, arch=AUDIT_ARCH_X86_64) == ALLOW
    assert run(arch, arch=0x40000003) == KILL
    high = bpf.Program().load_arg(5, high=True).jeq(2, "x").ret(KILL).label("x").ret(ALLOW)
    assert run(high, args=(0, 0, 0, 0, 0, 0x2_0000_0000)) == ALLOW
    assert run(high, args=(0, 0, 0, 0, 0, 2)) == KILL


def test_an_x32_number_is_seen_with_its_bit() -> None:
    program = bpf.Program().load_nr().jset(X32_SYSCALL_BIT, "x32").ret(ALLOW).label("x32").ret(KILL)
    assert (run(program, 2), run(program, X32_SYSCALL_BIT | 2), run(program, -1)) == (ALLOW, KILL, KILL)


def test_jeq_arg_compares_all_64_bits() -> None:
    program = bpf.Program().jeq_arg(1, -100, "hit").jeq_arg(1, 5, "hit").ret(ALLOW).label("hit").ret(KILL)
    assert run(program, args=(0, 2**64 - 100)) == KILL
    assert run(program, args=(0, 2**32 - 100)) == ALLOW  # the low half alone is not enough
    assert run(program, args=(0, 5)) == KILL
    assert run(program, args=(0, 0x1_0000_0005)) == ALLOW


def test_mask_keeps_only_its_bits() -> None:
    program = bpf.Program().load_arg(2).mask(0xF0).jeq(0x30, "hit").ret(ALLOW).label("hit").ret(KILL)
    assert (run(program, args=(0, 0, 0xFF3F)), run(program, args=(0, 0, 0x4F))) == (KILL, ALLOW)


@pytest.mark.parametrize("distance", [1, 253, 254, 255, 256, 257, 300, 2000])
@pytest.mark.parametrize("method", ["jeq", "jset", "jge", "jgt"])
def test_a_conditional_jump_reaches_any_distance(method: str, distance: int) -> None:
    program = bpf.Program().load_nr()
    getattr(program, method)(1, "far")
    for _ in range(distance):
        program.ret(ALLOW)
    program.label("far").ret(KILL)
    hit = 1 if method == "jeq" else 3
    assert (run(program, hit), run(program, 0)) == (KILL, ALLOW)
    assert len(program.assemble()) // 8 == len(program) + (1 if distance > 255 else 0)


def test_lengthening_one_jump_may_push_another_over_the_edge() -> None:
    # The first jump is exactly at 255; the second, inside it, is long and so moves the first's target.
    program = bpf.Program().load_nr().jeq(1, "near").jeq(2, "far")
    for _ in range(254):
        program.ret(ALLOW)
    program.label("near").ret(0x50001)
    for _ in range(300):
        program.ret(ALLOW)
    program.label("far").ret(0x50002)
    assert [run(program, nr) for nr in (1, 2, 3)] == [0x50001, 0x50002, ALLOW]
    assert len(program.assemble()) // 8 == len(program) + 2


def test_a_plain_jump_reaches_far() -> None:
    program = bpf.Program().jump("end")
    for _ in range(1000):
        program.ret(ALLOW)
    assert run(program.label("end").ret(KILL)) == KILL


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda p: p.jeq(1, "nowhere").ret(ALLOW), "'nowhere'"),
        (lambda p: p.label("back").load_nr().jeq(1, "back").ret(ALLOW), "'back'"),
        (lambda p: p.jeq(1, "end").ret(ALLOW).label("end"), "'end'"),
        (lambda p: p.label("twice").load_nr().label("twice"), "'twice'"),
        (lambda p: p.load_nr(), "end of program"),
        (lambda p: p, "end of program"),
        (lambda p: p.load_arg(6).ret(ALLOW), "argument 6"),
        (lambda p: p.load(64).ret(ALLOW), "offset 64"),
        (lambda p: p.load(3).ret(ALLOW), "offset 3"),
        (lambda p: p.jeq(2**32, "x").label("x").ret(ALLOW), "0x100000000"),
        (lambda p: p.ret(-1), "-0x1"),
    ],
)
def test_a_doubtful_program_is_refused_by_name(
    build: Callable[[bpf.Program], bpf.Program], named: str
) -> None:
    with pytest.raises(KernelError) as caught:
        build(bpf.Program()).assemble()
    assert named in str(caught.value)
    assert caught.value.errno == errno.EINVAL


def test_a_program_longer_than_the_kernel_takes_is_refused() -> None:
    program = bpf.Program()
    for _ in range(bpf.BPF_MAXINSNS):
        program.ret(ALLOW)
    assert len(program.assemble()) == bpf.BPF_MAXINSNS * 8
    with pytest.raises(KernelError, match="4097 instructions"):
        program.ret(ALLOW).assemble()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (bpf.BPF_ADD, 0x1_0000_0007 - 2**32),
        (bpf.BPF_SUB, 0xFFFFFFF7),
        (bpf.BPF_MUL, 0xFFFFFFFF * 8 & 0xFFFFFFFF),
        (bpf.BPF_DIV, 0xFFFFFFFF // 8),
        (bpf.BPF_OR, 0xFFFFFFFF),
        (bpf.BPF_AND, 8),
        (bpf.BPF_LSH, 0xFFFFFF00),
        (bpf.BPF_RSH, 0x00FFFFFF),
        (bpf.BPF_XOR, 0xFFFFFFF7),
        (bpf.BPF_NEG, 1),
    ],
)
@pytest.mark.parametrize("by_register", [False, True])
def test_arithmetic_as_the_kernel_does_it(operation: int, expected: int, by_register: bool) -> None:
    source = bpf.BPF_X if by_register else bpf.BPF_K
    k = 0 if by_register else 8
    program = raw(
        (bpf.BPF_LD | bpf.BPF_IMM, 0, 0, 8),
        (bpf.BPF_MISC | bpf.BPF_TAX, 0, 0, 0),
        (bpf.BPF_LD | bpf.BPF_IMM, 0, 0, 0xFFFFFFFF),
        (bpf.BPF_ALU | operation | source, 0, 0, k),
        (bpf.BPF_RET | bpf.BPF_A, 0, 0, 0),
    )
    assert run(program) == (expected if operation != bpf.BPF_SUB else 0xFFFFFFFF - 8)


def test_registers_and_memory() -> None:
    program = raw(
        (bpf.BPF_LDX | bpf.BPF_IMM, 0, 0, 11),
        (bpf.BPF_STX, 0, 0, 3),
        (bpf.BPF_LD | bpf.BPF_IMM, 0, 0, 31),
        (bpf.BPF_ST, 0, 0, 4),
        (bpf.BPF_LDX | bpf.BPF_MEM, 0, 0, 4),
        (bpf.BPF_LD | bpf.BPF_MEM, 0, 0, 3),
        (bpf.BPF_ALU | bpf.BPF_ADD | bpf.BPF_X, 0, 0, 0),
        (bpf.BPF_MISC | bpf.BPF_TAX, 0, 0, 0),
        (bpf.BPF_LD | bpf.BPF_IMM, 0, 0, 0),
        (bpf.BPF_MISC | bpf.BPF_TXA, 0, 0, 0),
        (bpf.BPF_RET | bpf.BPF_A, 0, 0, 0),
    )
    assert run(program) == 42


def test_division_by_zero_ends_the_program_with_the_hardest_action() -> None:
    division = (bpf.BPF_ALU | bpf.BPF_DIV | bpf.BPF_X, 0, 0, 0)
    assert run(raw(division, (bpf.BPF_RET | bpf.BPF_K, 0, 0, ALLOW))) == 0


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"1234567",
        raw((bpf.BPF_LD | bpf.BPF_IMM, 0, 0, 1)),  # runs off its end
        raw((bpf.BPF_LD | bpf.BPF_W | bpf.BPF_ABS, 0, 0, 64)),
        raw((bpf.BPF_LD | bpf.BPF_W | bpf.BPF_ABS, 0, 0, 2)),
        raw((bpf.BPF_LD | bpf.BPF_MEM, 0, 0, 16)),
        raw((0x30, 0, 0, 0)),  # a load of one byte
        raw((bpf.BPF_ALU | 0xC0, 0, 0, 0)),
        raw((bpf.BPF_JMP | 0xF0, 0, 0, 0)),
    ],
)
def test_what_the_kernel_would_not_load_is_not_simulated(program: bytes) -> None:
    with pytest.raises(KernelError):
        run(program)


def test_the_text_shows_targets_as_places() -> None:
    program = (
        bpf.Program().load_nr().mask(15).jeq(2, "x").jump("x").ret(ALLOW).label("x").ret(KILL).assemble()
    )
    lines = bpf.disassemble(
        program + raw((bpf.BPF_MISC, 0, 0, 0), (bpf.BPF_ALU | bpf.BPF_ADD | bpf.BPF_X, 0, 0, 0))
    )
    assert [line.split(None, 1)[1] for line in lines] == [
        "load [0]",
        "and 0xf",
        "jeq 0x2 ? 5 : 3",
        "ja 5",
        "ret 0x7fff0000",
        "ret 0x80000000",
        "code 0x07 0x0",
        "add x",
    ]


def random_program(rng: random.Random) -> bpf.Program:
    """A filter on getppid alone: tests of its arguments, in any order, ending in errors 1 to 200."""
    program = bpf.Program().load_nr().jeq(NR["getppid"], "mine").ret(ALLOW).label("mine")
    count = rng.randint(5, 400)
    for index in range(count):
        program.label(f"l{index}")
        kind = rng.randrange(6)
        target = f"l{rng.randint(index + 1, count)}"
        if kind == 0:
            program.load_arg(rng.randrange(6), rng.random() < 0.5)
        elif kind == 1:
            program.mask(rng.getrandbits(32))
        elif kind == 2 and rng.random() < 0.3:
            program.jeq_arg(rng.randrange(6), rng.randrange(4), target)
        elif kind == 5 and rng.random() < 0.1:
            program.jump(target)
        else:
            compare = getattr(program, rng.choice(["jeq", "jset", "jge", "jgt"]))
            compare(rng.choice([0, 1, 2, 3, rng.getrandbits(32)]), target)
        if rng.random() < 0.1:
            program.ret(ERRNO | rng.randint(1, 200))
    return program.label(f"l{count}").ret(ERRNO | rng.randint(1, 200))


def _answers(program: bytes, calls: list[tuple[int, ...]]) -> list[int]:
    prctl.set_no_new_privs()
    seccomp.set_filter(program)
    return [-libc.raw_syscall(NR["getppid"], *args) for args in calls]


@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_runs_a_random_program_as_the_simulation_does(
    child: Callable[..., Any], seed: int
) -> None:
    rng = random.Random(seed)
    program = random_program(rng).assemble()
    some = [0, 1, 2, 3, 2**32, 2**63, 2**64 - 1]
    calls = [tuple(rng.choice([*some, rng.getrandbits(64)]) for _ in range(6)) for _ in range(60)]
    expected = [bpf.simulate(program, bpf.pack_data(NR["getppid"], AUDIT_ARCH, args)) for args in calls]
    assert child(_answers, program, calls) == [action & seccomp.SECCOMP_RET_DATA for action in expected]
