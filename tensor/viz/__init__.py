"""One HTML page that shows how tensors were computed: see ``write`` and ``record``."""

from amdrv.tensor.viz.page import write, write_page
from amdrv.tensor.viz.record import Recorded, record

__all__ = ["Recorded", "record", "write", "write_page"]
