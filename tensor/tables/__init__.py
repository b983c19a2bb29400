"""Facts that the compiler looks up: operations, instructions, coefficients, costs."""
