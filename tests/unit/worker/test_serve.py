"""The whole worker with the real model, in a plain process over pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.worker import files
from tests.unit.worker.serving import Worker

LETTER = "Dear Ms Teller,\n\nWhat you paid for the roof: 4,860 pounds, by bank transfer on 12 May 2025.\n"


@pytest.fixture(scope="module")
def worker(demo_model: Path) -> Iterator[Worker]:
    made = Worker()
    loaded = made.load(str(demo_model))
    assert loaded["type"] == "loaded"
    yield made
    report = made.close()
    # After everything that the tests of this module asked: nothing that the cell would refuse.
    assert report["status"] == 0
    assert report["executable"] == []
    assert report["writable code"] == []
    assert report["late"] == []
    assert report["seen"] == []
    assert set(report["versions"]) == {"llama.cpp"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "roof.txt").write_text(LETTER)
    (tmp_path / "garden.md").write_text("# Garden\n\nThe beans are up.\n")
    return tmp_path


def test_the_model_says_what_it_is(demo_model: Path) -> None:
    worker = Worker({"suffixes": []})
    loaded = worker.load(str(demo_model), context=0, threads=0)
    assert loaded == {
        "type": "loaded",
        "context": 8192,
        "trained_context": 8192,
        "threads": len(os.sched_getaffinity(0)),
        "description": loaded["description"],
        "embeddings": True,
    }
    assert "llama" in loaded["description"]
    worker.send("quit")
    assert worker.close()["status"] == 0


def test_a_question_alone_is_answered(worker: Worker) -> None:
    answer = worker.ask("Say hello.", system="You are polite.")
    assert answer.text
    assert answer.end["type"] == "done"
    assert answer.end["reason"] in ("stop", "length")
    assert answer.end["files"] == []
    assert answer.end["output_tokens"] <= 24
    assert answer.end["prompt_seconds"] > 0


def test_a_named_file_is_read_whole_and_answers(worker: Worker, folder: Path) -> None:
    answer = worker.ask("How much did the roof cost?", files=[str(folder / "roof.txt")])
    assert "4,860" in answer.text
    assert answer.end["files"] == [str(folder / "roof.txt")]
    assert answer.outcomes() == {"roof.txt": "used"}
    assert answer.documents[str(folder / "roof.txt")]["tokens"] > 20


def test_the_same_request_gets_the_same_answer(worker: Worker, folder: Path) -> None:
    first, second = (
        worker.ask("How much?", roots=[str(folder)], temperature=temperature, seed=7)
        for temperature in (0.8, 0.8)
    )
    assert first.text == second.text
    other = worker.ask("How much?", roots=[str(folder)], temperature=1.5, seed=8, max_tokens=40)
    assert other.text != first.text
    assert worker.ask("How much?", roots=[str(folder)], temperature=1.5, seed=None).text


def test_a_folder_of_all_kinds_is_used_whole_when_it_fits(worker: Worker, folder: Path) -> None:
    (folder / "bill.pdf").write_bytes(files.pdf("The chimney cost 310 pounds"))
    (folder / "minutes.docx").write_bytes(files.word("The meeting is on Monday."))
    (folder / "page.html").write_text("<p>The ferry leaves at six.</p><script>no()</script>")
    (folder / "page2.html").write_bytes('<meta charset="shift_jis"><p>日本</p>'.encode("cp932"))
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    (folder / "odd\nname \udcff].json").write_text('{"k": 1}')
    answer = worker.ask("When does the ferry leave?", roots=[str(folder)])
    assert set(answer.outcomes().values()) == {"used"}
    assert len(answer.documents) == 8
    assert sorted(answer.end["files"]) == sorted(answer.documents)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(worker: Worker, folder: Path) -> None:
    (folder / "empty.txt").touch()
    (folder / "white.txt").write_text(" \n\n ")
    (folder / "locked.pdf").write_bytes(files.pdf("x", encrypted=True))
    (folder / "scan.pdf").write_bytes(files.pdf("", ""))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nno more")
    (folder / "broken.docx").write_bytes(files.word("x")[:-40])
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "noise").write_bytes(bytes(range(256)) * 9)
    answer = worker.ask("How much did the roof cost?", roots=[str(folder)])
    assert answer.end["type"] == "done"
    reasons = answer.reasons()
    for name, reason in {
        "empty.txt": "empty",
        "white.txt": "empty",
        "locked.pdf": "encrypted",
        "scan.pdf": "no text",
        "broken.pdf": "broken",
        "broken.docx": "broken",
        "photo.png": "an image",
        "noise": "binary",
        "roof.txt": "",
    }.items():
        assert reason in reasons[name]
        assert (answer.outcomes()[name] == "skipped") == bool(reason)
    assert sorted(map(os.path.basename, answer.end["files"])) == ["garden.md", "roof.txt"]


def test_the_same_text_is_read_once(worker: Worker, folder: Path) -> None:
    (folder / "b\udcff.txt").write_text("The ferry leaves at six.")
    (folder / "copy.txt").write_text("The ferry leaves at six.")
    (folder / "link.txt").symlink_to("copy.txt")
    answer = worker.ask("When does the ferry leave?", roots=[str(folder)])
    assert answer.outcomes()["b\udcff.txt"] == "used"
    for name in ("copy.txt", "link.txt"):
        assert answer.outcomes()[name] == "skipped"
        assert answer.reasons()[name] == "the same text as b\\udcff.txt"
    both = [str(folder / name) for name in ("copy.txt", "link.txt")]
    assert set(worker.ask("When?", files=both).outcomes().values()) == {"used"}


def test_no_document_left_is_a_failure(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    one = worker.ask("What?", files=[str(tmp_path / "a.txt")])
    assert (one.end["type"], one.end["code"]) == ("failed", "no_documents")
    assert one.outcomes() == {"a.txt": "skipped"}
    (tmp_path / "b.png").touch()
    assert worker.ask("What?", roots=[str(tmp_path)]).end["message"] == "not one document could be read"
    (tmp_path / "empty").mkdir()
    none = worker.ask("What?", roots=[str(tmp_path / "empty")])
    assert none.end["message"] == "there is no file in these folders"
    gone = worker.ask("What?", files=[str(tmp_path / "gone")])
    assert "No such file" in gone.reasons()["gone"]
    with_material = worker.ask("What is the word?", roots=[str(tmp_path)], material="The word is mauve.")
    assert with_material.end["type"] == "done"
    assert with_material.end["files"] == []


def test_named_files_that_do_not_fit_fail_with_their_tokens(worker: Worker, folder: Path) -> None:
    (folder / "long.txt").write_text("The harbour is long. " * 500)
    answer = worker.ask("What?", files=[str(folder / "long.txt"), str(folder / "roof.txt")])
    assert answer.end["code"] == "context_exceeded"
    detail = answer.end["detail"]
    assert detail["context"] == 1024
    assert detail[str(folder / "long.txt")] > 2000 > detail[str(folder / "roof.txt")] > 20
    assert detail["needed"] > detail["room"]
    assert detail["needed"] >= detail[str(folder / "long.txt")] + detail[str(folder / "roof.txt")]
    assert answer.documents == {}


@pytest.mark.parametrize(
    "fields", [{}, {"material": "word " * 3000}, {"history": [{"role": "user", "content": "x"}]}]
)
def test_a_conversation_that_does_not_fit_fails(
    worker: Worker, folder: Path, fields: dict[str, object]
) -> None:
    roots = [str(folder)] if "history" in fields else []
    answer = worker.ask("Why? " * 1500, roots=roots, **fields)
    assert answer.end["code"] == "context_exceeded"


def test_material_beside_a_folder_must_fit_whole(worker: Worker, folder: Path) -> None:
    answer = worker.ask("What?", roots=[str(folder)], material="word " * 3000)
    assert answer.end["code"] == "context_exceeded"
    assert answer.end["detail"]["standard input"] > 2000


def test_of_a_large_folder_the_best_passages_are_used(worker: Worker, folder: Path) -> None:
    for number in range(60):
        (folder / f"n{number:02}.txt").write_text(f"Note {number}: nothing of interest happened today. " * 8)
    pages = [f"Chapter {number}. " + "Rain all day on the moor. " * 30 for number in range(30)]
    pages[17] += "The crane in the harbour was sold for 900 pounds."
    (folder / "book.txt").write_text("\n\n".join(pages))
    answer = worker.ask("For how much was the harbour crane sold?", roots=[str(folder)])
    outcomes = answer.outcomes()
    assert outcomes["book.txt"] == "partial"
    assert outcomes["n07.txt"] == "unused"
    assert len(outcomes) == 63
    assert str(folder / "book.txt") in answer.end["files"]
    assert "900" in answer.text
    assert answer.end["prompt_tokens"] <= 1024 - 24


def test_without_a_word_in_common_the_beginnings_are_used(worker: Worker, folder: Path) -> None:
    (folder / "long.txt").write_text("Rain all day on the moor. " * 400)
    answer = worker.ask("¿¡ !?", roots=[str(folder)])
    assert answer.end["type"] == "done"
    assert answer.outcomes()["garden.md"] == "used"


def test_a_request_is_stopped_while_the_prompt_is_computed(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("All work and no play. " * 120)
    number = worker.request("What?", files=[str(tmp_path / "a.txt")])
    while worker.receive()["type"] != "progress":
        pass
    time.sleep(0.2)
    start = time.monotonic()
    worker.send("stop", id=number)
    end = worker.rest().end
    assert time.monotonic() - start < 1
    assert (end["reason"], end["output_tokens"]) == ("cancelled", 0)
    assert worker.ask("Say hello.").end["reason"] != "cancelled"


def test_a_request_is_stopped_while_it_answers(worker: Worker) -> None:
    number = worker.request("Write a long story about a lighthouse.", max_tokens=900)
    while worker.receive()["type"] != "token":
        pass
    worker.send("stop", id=number)
    answer = worker.rest()
    assert answer.end["reason"] == "cancelled"
    assert 0 < answer.end["output_tokens"] < 900


def test_a_request_is_stopped_before_it_begins(worker: Worker) -> None:
    worker.send("stop", id=worker._number + 2)
    assert worker.ask("Say hello.").end["reason"] != "cancelled"
    assert worker.ask("Say hello.").end["reason"] == "cancelled"
    assert worker.ask("Say hello.").end["reason"] != "cancelled"


def test_a_conversation_goes_on_and_is_not_computed_twice(worker: Worker, folder: Path) -> None:
    (folder / "more.txt").write_text("The tide is high at noon. " * 60)
    question = "How much did the roof cost?"
    first = worker.ask(question, roots=[str(folder)])
    history = [{"role": "user", "content": question}, {"role": "assistant", "content": first.text}]
    second = worker.ask("And when?", roots=[str(folder)], history=history)
    assert second.end["type"] == "done"
    assert second.end["prompt_tokens"] > first.end["prompt_tokens"]
    assert second.end["prompt_seconds"] < first.end["prompt_seconds"] / 2
    # The same turns as somebody else's conversation: all of it is computed again.
    worker.ask("Say hello.")
    third = worker.ask("And when?", roots=[str(folder)], history=history)
    assert third.end["prompt_seconds"] > second.end["prompt_seconds"] * 2


def test_the_limit_of_the_answer_is_told(worker: Worker) -> None:
    end = worker.ask("Write a long story about a lighthouse.", max_tokens=5).end
    assert (end["reason"], end["output_tokens"]) == ("length", 5)
    assert worker.ask("Say hello.", max_tokens=0).end["output_tokens"] == 0


def test_before_a_model_is_loaded_a_request_fails() -> None:
    worker = Worker({"suffixes": []})
    assert worker.ask("What?").end["code"] == "bad_request"
    assert worker.close()["status"] == 0


def test_a_document_whose_reader_was_not_prepared_is_skipped(demo_model: Path, folder: Path) -> None:
    worker = Worker({"suffixes": [".html"]})
    worker.load(str(demo_model))
    (folder / "a.pdf").write_bytes(files.pdf("text"))
    (folder / "b.html").write_text("<p>text")
    answer = worker.ask("What?", roots=[str(folder)], max_tokens=1)
    assert "when the worker started" in answer.reasons()["a.pdf"]
    assert answer.outcomes()["b.html"] == "used"
    report = worker.close()
    assert report["executable"] == report["late"] == []


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\3\4 no model at all, whatever it is called"])
def test_what_is_no_model_is_refused_with_a_reason(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    worker = Worker({"suffixes": []})
    failed = worker.load(str(tmp_path / "m.gguf"))
    assert (failed["type"], failed["code"], failed["id"]) == ("failed", "bad_model", None)
    assert failed["detail"]["size"] == len(content)
    assert worker.close()["status"] == 1


@pytest.mark.parametrize("keep", [1000, 2_000_000, 60_000_000])
def test_a_model_that_is_cut_off_is_refused(keep: int, tmp_path: Path, demo_model: Path) -> None:
    with demo_model.open("rb") as model:
        (tmp_path / "m.gguf").write_bytes(model.read(keep))
    worker = Worker({"suffixes": []})
    failed = worker.load(str(tmp_path / "m.gguf"))
    assert (failed["type"], failed["code"]) == ("failed", "bad_model")
    assert worker.close()["status"] == 1


def test_a_model_of_noise_is_refused(tmp_path: Path, demo_model: Path) -> None:
    with demo_model.open("rb") as model:
        head = model.read(24)
    (tmp_path / "m.gguf").write_bytes(head + b"\xa5" * 200_000)
    worker = Worker({"suffixes": []})
    assert worker.load(str(tmp_path / "m.gguf"))["code"] == "bad_model"
    assert worker.close()["status"] == 1


def test_what_is_no_message_ends_the_worker(demo_model: Path) -> None:
    worker = Worker({"suffixes": []})
    worker.load(str(demo_model))
    worker.send_bytes(b"\0\0\0\x02{}")
    assert worker.close()["status"] == 0


def test_the_end_of_the_channel_ends_an_answer(demo_model: Path) -> None:
    worker = Worker({"suffixes": []})
    worker.load(str(demo_model))
    worker.request("Write a long story about a lighthouse.", max_tokens=900)
    while worker.receive()["type"] != "token":
        pass
    start = time.monotonic()
    assert worker.close()["status"] == 0
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("unmeasured")
def test_what_is_imported_stays_little() -> None:
    """Numpy and the engine's own Python interface cost 180 ms and are not used."""
    code = (
        "import sys; from anchorhold.worker import main; main.prepare({'suffixes': []});"
        "print([name for name in ('numpy', 'llama_cpp.llama', 'docx', 'lxml', 'pypdfium2', "
        "'multiprocessing') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "[]\n"
