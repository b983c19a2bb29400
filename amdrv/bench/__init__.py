"""Measurements with a goal: what work takes on a device, through the public surface, every result checked."""
