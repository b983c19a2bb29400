"""The copy engines: their rings and what each packet does to memory."""
