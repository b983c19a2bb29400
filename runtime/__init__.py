"""Code objects, kernels, buffers, the compute queue and the device that ties them together.

The names a program needs are exported by ``amdrv`` itself.
"""
