"""The U-Net of the published networks (Funke et al. 2018)."""

from emsuite.models.unet import UNet, UNetSettings

__all__ = ["UNet", "UNetSettings"]
