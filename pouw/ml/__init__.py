"""Learning and scoring: the only part of the package that imports torch and MONAI."""
