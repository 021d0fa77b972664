"""What is learned from a dataset: single-step models, the denoiser, and the refinement they make together."""
