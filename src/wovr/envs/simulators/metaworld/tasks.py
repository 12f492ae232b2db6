"""The 50 tasks of Meta-World and their suites: plain tables, known where the package is not installed."""

from __future__ import annotations

from wovr.types import TaskInfo

HORIZON = 500
"""Actions of an episode, as Meta-World cuts it (6.25 s at 80 Hz)."""

NUM_INIT_STATES = 1000
"""Numbered initial states of a task; any number would do, each is the seed of its own layout."""

INSTRUCTIONS: dict[str, str] = {
    "assembly-v3": "pick up the nut by its green handle and put it over the peg",
    "basketball-v3": "pick up the basketball and drop it into the hoop",
    "bin-picking-v3": "pick up the cube from the red bin and put it into the blue bin",
    "box-close-v3": "pick up the lid and close the box with it",
    "button-press-topdown-v3": "press the red button down",
    "button-press-topdown-wall-v3": "reach over the wall and press the red button down",
    "button-press-v3": "push the red button in",
    "button-press-wall-v3": "reach around the wall and push the red button in",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine to the green dot",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the nut by its green handle off the peg",
    "door-close-v3": "close the door of the safe",
    "door-lock-v3": "turn the lock of the safe down",
    "door-open-v3": "open the door of the safe by its handle",
    "door-unlock-v3": "turn the lock of the safe to the side",
    "hand-insert-v3": "lower the gripper into the hole",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-open-v3": "turn the faucet open",
    "faucet-close-v3": "turn the faucet closed",
    "hammer-v3": "pick up the hammer and drive the nail in",
    "handle-press-side-v3": "press the handle at the side down",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle at the side up",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "pick-place-wall-v3": "pick up the puck, lift it over the wall and hold it at the blue dot",
    "pick-out-of-hole-v3": "pick the puck out of the hole and hold it at the blue dot",
    "pick-place-v3": "pick up the puck and hold it at the blue dot",
    "plate-slide-v3": "slide the plate forward into the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-back-side-v3": "slide the plate sideways out of the goal",
    "peg-insert-side-v3": "pick up the green peg and insert it sideways into the hole",
    "peg-unplug-side-v3": "pull the peg sideways out of its socket",
    "soccer-v3": "kick the ball into the goal",
    "stick-push-v3": "pick up the stick and push the thermos to the green dot with it",
    "stick-pull-v3": "pick up the stick and pull the thermos by its handle to the green dot with it",
    "push-v3": "push the puck to the green dot",
    "push-wall-v3": "push the puck around the wall to the green dot",
    "push-back-v3": "pull the block back to the green dot",
    "reach-v3": "move the gripper to the bright red dot",
    "reach-wall-v3": "move the gripper over the wall to the bright red dot",
    "shelf-place-v3": "pick up the blue block and put it onto the shelf",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-open-v3": "slide the window open",
    "window-close-v3": "slide the window closed",
}
"""Task -> the English sentence the policy is given (Meta-World itself has none). In the order of mt50."""

_MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
_MT25 = (
    *_MT10,
    "coffee-pull-v3",
    "pick-out-of-hole-v3",
    "disassemble-v3",
    "pick-place-wall-v3",
    "basketball-v3",
    "stick-pull-v3",
    "button-press-wall-v3",
    "faucet-open-v3",
    "door-lock-v3",
    "lever-pull-v3",
    "sweep-into-v3",
    "faucet-close-v3",
    "coffee-button-v3",
    "button-press-topdown-wall-v3",
    "dial-turn-v3",
)
_ML10_TRAIN = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "sweep-v3",
    "basketball-v3",
)
_ML10_TEST = ("drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3")
_ML25_TEST = ("basketball-v3", "door-close-v3", "shelf-place-v3", "sweep-v3", "button-press-v3")
_ML45_TEST = ("bin-picking-v3", "box-close-v3", "hand-insert-v3", "door-lock-v3", "door-unlock-v3")

_SUITE_TASKS: dict[str, tuple[str, ...]] = {
    "mt50": tuple(INSTRUCTIONS),
    "mt25": _MT25,
    "mt10": _MT10,
    "ml10_train": _ML10_TRAIN,
    "ml10_test": _ML10_TEST,
    "ml25_train": _MT25,
    "ml25_test": _ML25_TEST,
    "ml45_train": tuple(name for name in INSTRUCTIONS if name not in _ML45_TEST),
    "ml45_test": _ML45_TEST,
}

SUITES: dict[str, tuple[TaskInfo, ...]] = {
    suite: tuple(
        TaskInfo(suite, index, name, INSTRUCTIONS[name], HORIZON, NUM_INIT_STATES) for index, name in enumerate(names)
    )
    for suite, names in _SUITE_TASKS.items()
}
"""Suite -> its tasks: Meta-World's multi-task (mt) and meta-learning (ml) benchmarks, in an order of our own."""
