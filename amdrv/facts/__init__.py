"""Hardware facts as data: register tables, packet and structure layouts, ids. Nothing here acts."""
