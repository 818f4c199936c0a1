"""A finished run asked again: calibrators, shift, OOD, uncertainty, diagnosis."""
