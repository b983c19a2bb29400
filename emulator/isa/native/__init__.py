"""Machine code at native speed: GPU instructions to LLVM IR to host code, as a shader engine."""
