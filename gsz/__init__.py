"""The formats of 3D Gaussian Splatting models: read, write and convert them, and round models to what they can hold."""

__version__ = "0.1.0"
