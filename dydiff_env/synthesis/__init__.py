"""Rollouts in a world: filters, baselines, and their export to Minari."""
