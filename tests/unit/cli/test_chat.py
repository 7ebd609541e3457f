"""`chat` on real pseudo-terminals: line editing, commands, Ctrl-C in every place."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Child, Stage

Steps = list[list[Any]]
MODEL = ("--model", "model.gguf")
DIGEST = "cd" * 32
ANSWER: Steps = [
    ["shown", "/notes/a\x1b.md", DIGEST, 41000],
    ["token", "The answer \x1b[31m."],
    ["done", "stop", ["/notes/a\x1b.md"]],
]
WAITING: Steps = [["token", "half"], ["sleep", 25]]


def start(stage: Stage, steps: Steps, **how: Any) -> Child:
    child = stage.child(steps, "chat", *MODEL, stdin="tty", stdout="tty", stderr="tty", **how)
    child.expect("> ")
    return child


def type_at_prompt(child: Child, text: str) -> None:
    """Once readline has the terminal: before that, the terminal itself would take Ctrl-D and Ctrl-C."""
    child.read(lambda child: child.screen.endswith(b"> "))
    child.type(text)


def asked(stage: Stage) -> list[list[Any]]:
    return [json.loads(line[4:]) for line in stage.record if line.startswith("ask ")]


@pytest.mark.parametrize("leave", ["/quit\n", "/bye\n", "/exit\n", "\x04"])
def test_a_conversation(leave: str, stage: Stage) -> None:
    child = start(stage, ANSWER)
    child.type("What?\n")
    child.expect("⚓ from:")
    child.type("And\n")
    child.read(lambda child: child.screen.count("⚓ from:".encode()) == 2)
    type_at_prompt(child, leave)
    assert child.wait() == 0
    screen = child.screen.decode()
    assert "A sealed model." in screen
    assert "The answer \\x1b[31m." in screen and "\x1b[31m" not in screen
    assert "⚓ seen: 2 files" in screen
    assert asked(stage) == [
        ["What?", None, []],
        [
            "And",
            None,
            [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "The answer \x1b[31m."}],
        ],
    ]
    assert stage.record.count("start") == 1 and stage.record[-1] == "close done"


def test_commands(stage: Stage) -> None:
    child = start(stage, ANSWER)
    child.type("/files\n")
    child.expect("shown no file yet")
    child.type("Q\n")
    child.expect("⚓ from:")
    child.type("/files\n")
    child.expect('"/notes/a\\x1b.md"  41 kB  sha256 cdcdcdcdcdcd…')
    child.type("/help\n")
    child.expect("/reset   forget")
    child.type("/etc/passwd is what?\n")
    child.expect("/etc/passwd is no command")
    child.type("\n  \n/reset\n")
    child.expect("Forgotten.")
    child.type("/files\n")
    child.read(lambda child: child.screen.count(b"shown no file yet") == 2)
    child.type("Q2\n")
    child.read(lambda child: child.screen.count("⚓ from:".encode()) == 2)
    child.type("/quit\n")
    assert child.wait() == 0
    assert asked(stage) == [["Q", None, []], ["Q2", None, []]]
    assert [line for line in stage.record if line[:5] in ("start", "close")] == [
        "start",
        "close reset",
        "start",
        "close done",
    ]


def test_many_files_are_listed_in_part(stage: Stage) -> None:
    steps: Steps = [["shown", f"/n/{number}", DIGEST, 1] for number in range(60)]
    child = start(stage, [*steps, ["token", "x"], ["done", "length", []]])
    child.type("Q\n")
    child.expect("⚓ cut:")
    child.type("/files\n")
    child.expect("… and 10 more files: anchorhold audit show 7f3a01234567")
    type_at_prompt(child, "\x04")
    assert child.wait() == 0


def test_ctrl_c_in_an_answer_kills_says_so_and_the_next_question_has_a_fresh_cell(stage: Stage) -> None:
    child = start(stage, WAITING)
    for turn in (1, 2):
        child.type(f"Q{turn}\n")
        child.read(lambda _child, turn=turn: stage.record.count("asleep") == turn)  # type: ignore[misc]
        child.type("\x03")
        child.read(lambda child, turn=turn: child.screen.count("⚓ killed:".encode()) == turn)  # type: ignore[misc]
    type_at_prompt(child, "\x04")
    assert child.wait() == 0
    screen = child.screen.decode()
    assert "Traceback" not in screen and "The next question starts a fresh cell" in screen
    assert [line.split()[0] for line in stage.record] == [
        *("suffixes", "start", "ask", "asleep", "kill", "close"),
        *("suffixes", "start", "ask", "asleep", "kill", "close"),
    ]
    assert stage.record[5] == "close interrupted"
    assert [turn[2] for turn in asked(stage)] == [[], []]  # what was interrupted is forgotten


def test_ctrl_c_at_an_empty_prompt_leaves(stage: Stage) -> None:
    child = start(stage, ANSWER)
    child.type("\x03")
    assert child.wait() == 130
    assert stage.record[-1] == "close interrupted"
    assert stage.record[-2].startswith("kill")
    assert b"Traceback" not in child.screen


def test_ctrl_c_on_a_typed_line_drops_the_line(stage: Stage) -> None:
    child = start(stage, ANSWER)
    child.type("never mind")
    child.expect("never mind")
    time.sleep(
        0.3
    )  # CPython's input() sees a signal that comes while it handles a key with the next key only
    child.type("\x03")
    child.read(lambda child: child.screen.count(b"> ") >= 2)
    child.type("Q\n")
    child.expect("⚓ from:")
    type_at_prompt(child, "\x04")
    assert child.wait() == 0
    assert [turn[0] for turn in asked(stage)] == ["Q"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it(number: int, stage: Stage) -> None:
    at_prompt = start(stage, ANSWER)
    at_prompt.signal(number)
    assert at_prompt.wait() == 130
    assert stage.record[-1] == "close interrupted"
    answering = start(stage, WAITING)
    answering.type("Q\n")
    stage.until_recorded("asleep")
    answering.signal(number)
    assert answering.wait() == 130
    assert stage.record[-1] == "close interrupted"


def test_the_terminal_that_goes_away(stage: Stage) -> None:
    child = start(stage, WAITING)
    child.type("Q\n")
    stage.until_recorded("asleep")
    import os

    os.close(child.master)
    child.master = -1
    child.process.wait(20)
    assert child.process.returncode == 130
    assert stage.record[-1] == "close interrupted"


def test_history_is_in_memory_only(stage: Stage) -> None:
    child = start(stage, ANSWER)
    child.type("a secret question\n")
    child.expect("⚓ from:")
    type_at_prompt(child, "\x1b[A\n")  # arrow up: the same question again
    child.read(lambda child: child.screen.count("⚓ from:".encode()) == 2)
    type_at_prompt(child, "\x04")
    assert child.wait() == 0
    assert [turn[0] for turn in asked(stage)] == ["a secret question"] * 2
    for path in stage.folder.rglob("*"):
        if path.is_file() and path.name != "record":
            assert b"a secret question" not in path.read_bytes(), path


def test_a_failed_answer_is_told_and_the_talk_goes_on(stage: Stage) -> None:
    child = start(stage, [["raise", "WorkerError", "the prompt does not fit\x1b"]])
    for turn in (1, 2):
        child.type("Q\n")
        child.read(lambda child, turn=turn: child.screen.count(b"does not fit\\x1b") == turn)  # type: ignore[misc]
    type_at_prompt(child, "\x04")
    assert child.wait() == 0
    assert stage.record.count("close failed") == 2 and stage.record.count("start") == 2


def test_a_breach_ends_it(stage: Stage) -> None:
    child = start(stage, [["raise", "BreachError", "asked for /etc/shadow"]])
    child.type("Q\n")
    assert child.wait() == 3
    assert b"asked for /etc/shadow" in child.screen


def test_a_start_that_fails(stage: Stage) -> None:
    child = stage.child([["start-raises", "LayerError", "no netns"]], "chat", *MODEL, stdin="tty")
    assert child.wait() == 6
    assert b"no netns" in child.stderr


def test_questions_from_a_pipe(stage: Stage) -> None:
    child = stage.child(ANSWER, "chat", *MODEL, stdin="pipe")
    assert child.process.stdin is not None
    child.process.stdin.write("Eins?\n\nZw\xe9i?\n".encode("latin-1") + b"last")
    child.process.stdin.close()
    assert child.wait() == 0
    assert child.stdout == b"The answer \x1b[31m.\n" * 3
    assert [turn[0] for turn in asked(stage)] == ["Eins?", "Zw\ufffdi?", "last"]
    assert b"A sealed model" not in child.stderr


def test_a_failed_question_from_a_pipe_is_the_exit_code(stage: Stage) -> None:
    child = stage.child([["raise", "LimitError", "too much memory"]], "chat", *MODEL, stdin="pipe")
    assert child.process.stdin is not None
    child.process.stdin.write(b"one\ntwo\n")
    child.process.stdin.close()
    assert child.wait() == 1
    assert len(asked(stage)) == 2
    assert child.stderr.count(b"too much memory") == 2


def test_typing_with_the_answer_in_a_pipe(stage: Stage) -> None:
    child = stage.child(ANSWER, "chat", *MODEL, stdin="tty", stderr="tty")
    child.expect("> ")
    child.type("Q\n")
    child.expect("⚓ from:")
    type_at_prompt(child, "\x04")
    assert child.wait() == 0
    assert child.stdout == b"The answer \x1b[31m.\n"


def test_a_reader_that_leaves(stage: Stage) -> None:
    child = stage.child(WAITING, "chat", *MODEL, stdin="tty", stderr="tty")
    child.expect("> ")
    child.type("Q\n")
    stage.until_recorded("asleep")
    assert child.process.stdout is not None
    child.process.stdout.close()
    assert child.wait() == 130
    assert stage.record[-1] == "close interrupted"


def test_material_is_not_for_chat(stage: Stage) -> None:
    assert stage.main([], "chat", *MODEL, "--file", "-") == 2
    assert stage.record == []
