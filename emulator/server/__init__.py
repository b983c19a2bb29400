"""The emulated card behind a socket: a vfio-user server, for clients in other processes and for virtual machines."""

from amdrv.emulator.server.server import Server

__all__ = ["Server"]
