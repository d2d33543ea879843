"""Seeded random walks over the steps of the resumption machine: cheaper than hypothesis by far, so they go further.

python -m tests.support.walks <first seed> <walks> [honest | hours | lying]     (a failure is shortened and shown)
"""

from __future__ import annotations

import random
import sys

from tests.support.liars import LYING_ARGUMENTS, LYING_WEIGHTS, LyingSteps
from tests.support.steps import SETTING, WEIGHTS, Step, Steps, heal, random_numbers, run, setting_of
from tests.support.tiny import tiny

LENGTH = 150
WORLDS = ("honest", "hours", "lying")


def steps_of(seed: int, world: str = "honest") -> list[Step]:
    """The first one tells the setting of the network."""
    rng = random.Random(seed)
    setting = random_numbers(rng, SETTING)
    if rng.random() < 0.7:
        setting["opener_budget"] = setting["acceptor_budget"] = 0
    walk: list[Step] = [("setting", setting)]
    for index in range(rng.randint(1, 3)):
        walk.append(("open", {"index": index & 1}))
        if rng.random() < 0.7:
            walk += [("settle", {}), ("answer", {"good": 1}), ("settle", {})]
    weights = LYING_WEIGHTS if world == "lying" else WEIGHTS
    for name in rng.choices(list(weights), list(weights.values()), k=rng.randint(10, LENGTH)):
        walk.append((name, random_numbers(rng, LYING_ARGUMENTS[name])))
    return walk


def made(numbers: dict[str, int], world: str) -> Steps:
    setting = setting_of(numbers)
    if world == "lying":
        setting.liars = True
        return LyingSteps(setting)
    return Steps(setting, hours=world == "hours")


def replay(walk: list[Step], world: str = "honest") -> None:
    """Raises AssertionError, or whatever the core raises, when something is wrong."""
    with tiny():
        steps = made(walk[0][1], world)
        for step in walk[1:]:
            run(step, steps)
        heal(steps)


def wrong(walk: list[Step], world: str = "honest") -> str | None:
    """What goes wrong in the walk."""
    try:
        replay(walk, world)
    except Exception as exc:  # noqa: BLE001 - a crash of the core is what is looked for, too
        return f"{type(exc).__name__}: {exc}"
    return None


def shortest(walk: list[Step], world: str) -> list[Step]:
    """Fewer steps that go wrong, in whatever way."""
    size = max(1, len(walk) // 2)
    while True:
        at, shorter = 1, False
        while at < len(walk):
            less = walk[:at] + walk[at + size :]
            if wrong(less, world):
                walk, shorter = less, True
            else:
                at += size
        if size == 1 and not shorter:
            return walk
        size = max(1, size // 2)


def show(walk: list[Step]) -> str:
    return "\n".join(f"    {name}({', '.join(f'{k}={v}' for k, v in numbers.items())})" for name, numbers in walk)


def search(first: int, walks: int, world: str = "honest") -> int:
    """Walk with one seed after the other; how many steps that were. Raises AssertionError with the shortened walk."""
    count = 0
    for seed in range(first, first + walks):
        walk = steps_of(seed, world)
        count += len(walk)
        if why := wrong(walk, world):
            least = shortest(walk, world)
            raise AssertionError(f"{world} seed {seed}: {why}\nshortened: {wrong(least, world)}\n{show(least)}")
    return count


def main(arguments: list[str]) -> None:
    first, walks, *worlds = arguments
    for world in worlds or WORLDS:
        print(world, search(int(first), int(walks), world), "steps", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
