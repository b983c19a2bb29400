"""What the PSP tells the other models about firmware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from amdrv.emulator.model import Model


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image that the PSP has accepted."""

    fw_type: int  # FwType
    name: str
    version: int  # as its signed header states it
    size_bytes: int
    sha256: bytes  # of the signed piece
    tmr_address: int  # MC address of the PSP's copy; 0 for an image that goes elsewhere


class FirmwareUser(Model):
    """A model that starts when the PSP has accepted its image."""

    def firmware_loaded(self, image: LoadedImage) -> None:
        """An image was accepted: every one, of whatever type, is announced to every firmware user."""


@runtime_checkable
class Autoloader(Protocol):
    """A model that boots the graphics core once all of its images are in place."""

    def autoload(self) -> None:
        """Start the engines; what they run is what ``Psp.loaded`` returns."""
