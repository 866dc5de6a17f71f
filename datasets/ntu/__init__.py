"""NTU RGB+D: RGB videos and skeletons of 60 actions."""

SAMPLE = r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}"  # name of a sample: setup, camera, subject, repetition, action
