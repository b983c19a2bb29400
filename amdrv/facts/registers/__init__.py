"""Generated register tables; read them through amdrv.registers."""
