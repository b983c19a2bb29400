"""One file per hardware block: the register sequences that start it, use it and stop it."""
