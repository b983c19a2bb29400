"""The packet processor: what the compute engine's firmware does with a PM4 stream."""
