"""GPU virtual memory as the card does it: page-table walk, translation cache, a shader's view."""
