"""Pictures of domain transfer, for snapshots and TensorBoard.

a/raw  a/fake_b  a/reconstructed  a/labels  a/HEAD            an image of a, as one of b, and back
b/raw  b/fake_a  b/reconstructed  b/HEAD                      an image of b, as one of a, and back

Images are undone to the grey values of their look, 0 to 1. Heads are what the generator predicts beside the fake.
"""

import torch
from torch import Tensor

from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.training.batches import Batch
from emsuite.training.step import TrainingState
from emsuite.training.transfer.losses import Cycle, Translator


@torch.no_grad()
def make_panels(translator: Translator, state: TrainingState, batch: Batch, a: Cycle, b: Cycle) -> dict[str, Tensor]:
    """Return the pictures of a batch by name, (B, C, Z, Y, X) float32, 0 to 1; labels are ids."""
    assert state.domains is not None
    scale = {name: DomainStatistics.from_dict(stored).scale for name, stored in state.domains.items()}
    panels = dict[str, Tensor]()
    for name, other, raw, cycle in (("a", "b", batch.arrays["raw"], a), ("b", "a", batch.arrays["b"], b)):
        panels[f"{name}/raw"] = scale[name].undo(raw)
        panels[f"{name}/fake_{other}"] = scale[other].undo(cycle.fake)
        panels[f"{name}/reconstructed"] = scale[name].undo(cycle.back)
        for head, logits in cycle.heads.items():
            settings = translator.config.heads[head]
            panels[f"{name}/{head}"] = settings.to_unit_range(settings.activate(logits))
    if batch.targets:
        panels["a/labels"] = next(iter(batch.targets.values())).labels[:, None]
    return {name: panel if name == "a/labels" else panel.clamp(0, 1) for name, panel in panels.items()}
