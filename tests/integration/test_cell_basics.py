"""The cell stands, seals and answers; its layers are those that it says."""

from __future__ import annotations

from pathlib import Path

from tests.integration import cells


def test_a_probe_reads_what_is_granted_and_nothing_else(
    state_dir: Path, demo_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha")
    (tmp_path / "secret.txt").write_text("secret")
    out = cells.run(
        state_dir,
        cells.policy(demo_model, read=(folder,)),
        f"""
        import os
        def attempt():
            got = [open({str(folder / "a.txt")!r}).read(), repr(sorted(os.listdir({str(folder)!r})))]
            try:
                open({str(tmp_path / "secret.txt")!r})
                got.append("OPENED")
            except PermissionError:
                got.append("refused")
            return "|".join(got)
        """,
    )
    assert out.answer == "alpha|['a.txt']|refused"
    assert [entry["path"] for entry in out.denials()] == [str(tmp_path / "secret.txt")]
    kinds = [entry["kind"] for entry in out.log]
    assert kinds[0] == "session.start" and kinds[-1] == "session.end"
    assert {"seccomp", "landlock", "no_new_privs", "capabilities"} <= set(out.summary.layers)
