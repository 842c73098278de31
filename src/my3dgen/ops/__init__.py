"""Tensor operations of the generator: pure functions, no parameters."""
