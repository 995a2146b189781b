"""What torch has once a process, random state and thread count, lent to one after the other.

Runs of several threads take turns, a step each, so that one's dropout never draws from another's numbers. All that
draws from torch's generators goes through here: training in one thread, writing in another. So a number never depends
on what else is going on in the process: see `training.train`, which takes a turn for each step.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from workbench.errors import whole

# Reentrant: a run that is dropped is closed wherever its last reference went, inside another's turn too.
TURN = threading.RLock()


def one_thread_workers(workers: int | None = None) -> int:
    """How many processes of one thread to start: as many as asked for, else one per CPU core, and one on a GPU.

    Raises:
        WorkbenchError: a number below 1 or above 4,096, or none.
    """
    if workers is not None:
        return whole("workers", workers, 1, 4096)
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


class Own:
    """A random state and a thread count of one's own, kept from one turn to the next."""

    def __init__(self, threads: int | None = None):
        """Begin with the process's random state; `threads` of None leaves their number alone."""
        self.threads, self.random = threads, None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the turn, with one's own; whoever had them before gets theirs back at its end."""
        with TURN:
            theirs, threads = _random_state(), torch.get_num_threads()
            torch.set_num_threads(self.threads or threads)
            if self.random is not None:
                _set_random_state(self.random)
            try:
                yield
            finally:
                self.random = _random_state()
                _set_random_state(theirs)
                torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int, threads: int | None = None) -> Iterator[None]:
    """One turn that draws from `seed`."""
    with Own(threads).turn():
        torch.manual_seed(seed)
        yield


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
