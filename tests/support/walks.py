"""Seeded random walks over the steps of the resumption machine: cheaper than hypothesis by far, so they go further.

    python -m tests.support.walks [first seed] [walks] [--hours]     (a failure is shortened and shown)
"""

from __future__ import annotations

import random
import sys
import traceback

from tests.support.steps import ARGUMENTS, SETTING, WEIGHTS, Step, Steps, heal, random_numbers, run, setting_of
from tests.support.tiny import tiny

LENGTH = 150
_NAMES, _WEIGHTS = list(WEIGHTS), list(WEIGHTS.values())


def steps_of(seed: int) -> list[Step]:
    """The first one tells the setting of the network."""
    rng = random.Random(seed)
    setting = random_numbers(rng, SETTING)
    if rng.random() < 0.7:
        setting["poor"] = 0
    walk: list[Step] = [("setting", setting)]
    for index in range(rng.randint(1, 3)):
        walk.append(("open", {"index": index & 1}))
        if rng.random() < 0.7:
            walk += [("settle", {}), ("answer", {"good": 1}), ("settle", {})]
    for name in rng.choices(_NAMES, _WEIGHTS, k=rng.randint(10, LENGTH)):
        walk.append((name, random_numbers(rng, ARGUMENTS[name])))
    return walk


def replay(walk: list[Step], *, hours: bool = False) -> None:
    """Raises AssertionError, or whatever the core raises, when something is wrong."""
    with tiny():
        steps = Steps(setting_of(walk[0][1]), hours=hours)
        for step in walk[1:]:
            run(step, steps)
        heal(steps)


def wrong(walk: list[Step], *, hours: bool = False) -> str | None:
    """What goes wrong in the walk."""
    try:
        replay(walk, hours=hours)
    except Exception as exc:  # a crash of the core is what is looked for, too
        return f"{type(exc).__name__}: {exc}"
    return None


def shortest(walk: list[Step], *, hours: bool = False) -> list[Step]:
    """Fewer steps that go wrong, in whatever way."""
    size = max(1, len(walk) // 2)
    while True:
        at, shorter = 1, False
        while at < len(walk):
            less = walk[:at] + walk[at + size :]
            if len(less) > 1 and wrong(less, hours=hours):
                walk, shorter = less, True
            else:
                at += size
        if size == 1 and not shorter:
            return walk
        size = max(1, size // 2)


def show(walk: list[Step]) -> str:
    return "\n".join(f"    {name}({', '.join(f'{k}={v}' for k, v in numbers.items())})" for name, numbers in walk)


def search(first: int, walks: int, *, hours: bool = False) -> int:
    """Walk with one seed after the other; how many steps that were. Raises AssertionError with the shortened walk."""
    count = 0
    for seed in range(first, first + walks):
        walk = steps_of(seed)
        count += len(walk)
        if why := wrong(walk, hours=hours):
            least = shortest(walk, hours=hours)
            raise AssertionError(f"seed {seed}: {why}\nshortened: {wrong(least, hours=hours)}\n{show(least)}")
    return count


def main(arguments: list[str]) -> None:
    numbers = [int(each) for each in arguments if each.isdigit()]
    first, walks = [*numbers, 0, 1000][:2] if len(numbers) > 1 else [*numbers, *[0, 1000][len(numbers) :]]
    try:
        print(search(first, walks, hours="--hours" in arguments), "steps")
    except AssertionError:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
