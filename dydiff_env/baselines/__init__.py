"""Generators of synthetic data to compare DyDiff with: SynthER's transitions and MTDiff-s's trajectories."""
