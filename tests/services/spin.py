"""Runs the model checker spin over a model of `docs/model`, and says what it found."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parents[2] / "docs" / "model"

_GCC = ("gcc", "-w", "-O1", "-DVECTORSZ=2048", "-DMEMLIM=3000", "-DCOLLAPSE")
_SAFETY, _LIVENESS = ("-DSAFETY", "-DNOFAIR"), ("-DNFAIR=3",)
_DEPTH = 2_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """A model with these names defined; is its promise kept? `live`: that something happens, else that nothing does."""

    model: str
    defined: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the model's formula is asked about, under weak fairness."""
        return "LIVE" in self.defined


@dataclass(frozen=True, slots=True)
class Answer:
    """`broken` is the first fault that was found; `whole` says that every state was visited, and nothing left out."""

    broken: str | None
    whole: bool
    states: int
    unreached: tuple[str, ...]
    """Statements that no execution comes to, but the ends of processes that have none."""


def check(question: Question, folder: Path) -> Answer:
    """Let spin make the checker, and run it, in an empty folder. Raises AssertionError where tools are missing."""
    for tool in ("spin", "gcc"):
        assert shutil.which(tool), f"{tool} is missing; remedy: install the package of that name"
    model = folder / question.model
    model.write_text((MODELS / question.model).read_text())
    _run(folder, "spin", *(f"-D{name}" for name in question.defined), "-a", model.name)
    _run(folder, *_GCC, *(_LIVENESS if question.live else _SAFETY), "-o", "pan", "pan.c")
    return answer(_run(folder, "./pan", *(("-a", "-f") if question.live else ()), f"-m{_DEPTH}"))


def answer(output: str) -> Answer:
    """What the checker's output says."""
    found = re.search(r"^pan:\d+: (.*) \(at depth", output, re.MULTILINE)
    errors = int(_value(r"errors: (\d+)", output))
    assert bool(found) == bool(errors), output
    cut_short = ("Search not completed", "max search depth too small", "out of memory", "memory limit", "VECTORSZ")
    return Answer(
        broken=found.group(1) if found else None,
        whole=not any(said in output for said in cut_short),
        states=int(float(_value(r"([\d.e+]+) states, stored", output))),
        unreached=tuple(re.findall(r'^\t\S+, state \d+, "(?!-end-)(.*)"$', output, re.MULTILINE)),
    )


def _value(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    assert found, output
    return found.group(1)


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
