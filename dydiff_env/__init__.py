"""Dream environments from logged data (Dynamics Diffusion)."""

__version__ = "0.1.0"
