"""The command line: ``python -m fuzz TARGET``; ``script/fuzz`` is the same."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

TARGETS = ("framing", "control", "dialogue", "recovery", "directory", "query", "config")
KEPT = Path(__file__).parents[1] / "build" / "fuzz"
"""Where inputs are kept that led somewhere new, and findings, so that the next run goes on."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
INPUT_SECONDS = 10
"""One input that takes longer is a finding: most take less than a millisecond."""
MEMORY_MB = 2048
"""More memory than this is a finding."""
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass
class Outcome:
    """What came of a run: so many inputs tried in so many seconds, and what is kept of them."""

    status: int
    inputs: int
    seconds: float
    corpus: list[Path]
    findings: list[Path]

    def summary(self, target: str) -> str:
        """Return one line."""
        size = sum(path.stat().st_size for path in self.corpus)
        rate = self.inputs / self.seconds
        return (
            f"{target}: {self.inputs} inputs in {self.seconds:.0f} s, {rate:.0f}/s; corpus "
            f"{len(self.corpus)} inputs, {size} bytes; findings: {len(self.findings)}"
        )


def fuzz(
    target: str, directory: Path, options: Iterable[str], engine: Iterable[str] = ()
) -> Outcome:
    """Run a target under libFuzzer in a process of its own, until it is done or finds something.

    ``directory`` keeps the corpus and the findings. ``engine`` is what Python is to run instead of
    the engine and its target.
    """
    corpus, found = directory / "corpus", directory / "findings"
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    command = [sys.executable, *(engine or ("-m", "fuzz.engine", target))]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_shared_memory()) as room:
        seeds, words = Path(room, "seeds"), Path(room, "words")
        module = import_module(f"fuzz.{target}")
        _write_seeds(module, seeds, words)
        limits = [f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}"]
        if module.WORDS:  # libFuzzer refuses an empty dictionary
            limits.append(f"-dict={words}")
        places = (f"-artifact_prefix={found}/", str(corpus), str(seeds))
        began = time.monotonic()
        status, inputs = _run([*command, *limits, "-print_final_stats=1", *options, *places], room)
        seconds = time.monotonic() - began
    findings = sorted(set(found.iterdir()) - before)
    return Outcome(status, inputs, seconds, sorted(corpus.iterdir()), findings)


def _shared_memory() -> Path | None:
    """Return where files need no disk, if there is such a place."""
    return SHARED_MEMORY if SHARED_MEMORY.is_dir() else None


def _run(command: list[str], room: str) -> tuple[int, int]:
    """Run it, and pass on what it says; return its status and how many inputs it tried.

    libFuzzer ends the process on the spot, so what it leaves must lie in ``room``.
    """
    inputs, environment = 0, {**os.environ, "TMPDIR": room}
    with subprocess.Popen(  # noqa: S603
        command, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            if done := _DONE.match(line):
                inputs = int(done[1])
    return process.returncode, inputs


def _write_seeds(target: Any, seeds: Path, words: Path) -> None:
    """Write what to begin with, and a dictionary of words as libFuzzer reads it."""
    seeds.mkdir()
    for number, seed in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in target.WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))


def replay(target: str, files: Iterable[Path]) -> None:
    """Give a target what was kept, without libFuzzer: what is raised is seen where it is."""
    run = import_module(f"fuzz.{target}").run
    for file in files:
        run(file.read_bytes())
        click.echo(f"{file}: as it must be")


@click.command()
@click.argument("target", type=click.Choice(TARGETS))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runs", default=100_000, show_default=True, help="How many inputs are tried.")
@click.option("--seconds", default=0, help="For how long at most; 0 for no limit.")
@click.option("--seed", default=0, help="Of the chance; 0 for a new one.")
@click.option("--keep", default=KEPT, type=click.Path(path_type=Path), help="Where to keep what.")
def main(target: str, files: list[Path], runs: int, seconds: int, seed: int, keep: Path) -> None:
    """Try what strangers can send, or a disk can lose, at random but led by what it reaches.

    With FILES, such as an earlier finding, only these are tried. The status is 0 only if all that
    must hold did.
    """
    if files:
        replay(target, files)
        return
    limits = (f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}")
    outcome = fuzz(target, keep / target, limits)
    click.echo(outcome.summary(target))
    for finding in outcome.findings:
        click.echo(f"{finding}\nto try it again: script/fuzz {target} {finding}")
    if outcome.status or outcome.findings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
