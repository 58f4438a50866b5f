"""Parse the code that XLA compiled: the operations of each loop and their shapes."""

import re
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction in XLA's code."""

    opcode: str
    shapes: tuple[tuple[int, ...], ...]  # shapes of the results
    calls: tuple[str, ...]  # names of the computations that it calls
    text: str


COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\(")
SHAPE = re.compile(r"[a-z]\w*\[([\d,]*)\]")
CALLED = re.compile(
    r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%([\w.\-]+)"
)


def computations(text: str) -> dict[str, list[Instruction]]:
    """Parse the `as_text()` of a compiled function into {name of the computation: instructions}."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = found.setdefault(match[1], [])
        elif match := INSTRUCTION.match(line):
            shapes = tuple(
                tuple(int(n) for n in dims.split(",") if n) for dims in SHAPE.findall(match[1])
            )
            current.append(Instruction(match[2], shapes, tuple(CALLED.findall(line)), line.strip()))
    return found


def reachable(program: dict[str, list[Instruction]], name: str) -> list[Instruction]:
    """Return the instructions of a computation and of all computations that it calls."""
    seen, todo, result = set(), [name], []
    while todo:
        name = todo.pop()
        if name not in seen and name in program:
            seen.add(name)
            result += program[name]
            todo += [called for i in program[name] for called in i.calls]
    return result


def loops(program: dict[str, list[Instruction]]) -> dict[str, list[Instruction]]:
    """Map the body of every while loop to its instructions. Include called computations."""
    bodies = {i.calls for body in program.values() for i in body if i.opcode == "while"}
    return {name: reachable(program, name) for calls in bodies for name in calls if name in program}


def innermost(program: dict[str, list[Instruction]], opcode: str, rows: int) -> list[Instruction]:
    """Return the smallest loop that contains `opcode` and an array with `rows` rows."""
    mark = re.compile(rf"[\[,]{rows}[,\]]")
    having = [
        body
        for body in loops(program).values()
        if any(i.opcode == opcode for i in body) and any(mark.search(i.text) for i in body)
    ]
    assert having, f"no loop has a {opcode} and an array of {rows} rows"
    return min(having, key=len)
