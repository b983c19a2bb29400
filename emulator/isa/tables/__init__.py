"""Generated opcode tables, one text file a GPU generation (see amdrv.emulator.isa.table)."""
