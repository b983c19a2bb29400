"""Machine code: decode tables, decoder, disassembler, semantics and the interpreter."""
