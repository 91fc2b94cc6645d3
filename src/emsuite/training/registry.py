"""The kinds of training by name, as `step` in network.yaml names them.

A kind of training (`emsuite.training.step.TrainingStep`) says which networks and optimizers there are, how batches are
made and what one iteration does. The trainer does the rest: it resumes, loops, logs, saves and ends on signals, the
same for every kind. A new kind is a module of this package, its name here, and its name and keys in
`emsuite.config.network`.
"""

from typing import get_args

from emsuite.config.network import StepName
from emsuite.training.step import TrainingStep
from emsuite.training.supervised import Supervised
from emsuite.training.transfer.cyclegan import CycleGan

STEPS: dict[str, TrainingStep] = {"supervised": Supervised(), "cyclegan": CycleGan()}

assert set(STEPS) == set(get_args(StepName)), "emsuite.config.network names other kinds of training"
