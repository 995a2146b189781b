"""What `lm_loss` and `lm_step` share: arms that take turns, and ratios within a round."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def options(about: str) -> argparse.ArgumentParser:
    """How many rounds, and by which clock."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="of this process: for one thread on a busy machine")
    return parser


class Turns:
    """Seconds of each arm in each round, after a round to warm up; a busy moment of the machine falls on all arms."""

    def __init__(self, arms: Mapping[str, Callable[[], object]], chosen: argparse.Namespace):
        self.seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        self.clock = "cpu" if chosen.cpu_time else "wall"
        now = time.process_time if chosen.cpu_time else time.perf_counter
        for turn in range(-1, chosen.rounds):
            for arm, run in arms.items():
                began = now()
                run()
                if turn >= 0:
                    self.seconds[arm].append(now() - began)

    def ratio(self, arm: str, *over: str) -> float:
        """Median over the rounds of the arm's time over another's, or over the shorter of several."""
        others = map(min, zip(*(self.seconds[other] for other in over), strict=True))
        return round(statistics.median(a / b for a, b in zip(self.seconds[arm], others, strict=True)), 3)

    def report(self, **found: object) -> None:
        """The last line of a benchmark."""
        medians = {arm: round(statistics.median(values), 3) for arm, values in self.seconds.items()}
        print(json.dumps(found | {"seconds": medians, "threads": torch.get_num_threads(), "clock": self.clock}))
