"""Plain 3D Gaussian Splatting training (Kerbl et al., SIGGRAPH 2023): its schedule, density control and checkpoints.

``pretrain.py`` is the program; nothing that compresses imports this package.
"""
