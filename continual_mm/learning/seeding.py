"""torch's own dice, for modules that roll them."""

import torch


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the dice of the CPU and of a device.

    ``torch.manual_seed`` would seed those of every kind of device, and where CUDA is not in use yet
    it keeps a list of such calls, which grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
