"""Meaning of the numbers in a configuration row."""

ACTIVATION_NAMES = ("relu", "sigmoid", "leaky_relu", "gelu")  # by index
SKIP = -1  # index of the feature of a modality that a layer leaves out
