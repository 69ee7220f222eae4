"""How good an image is: PSNR, SSIM, LPIPS, and the loss that training lowers.

Importing it keeps PyTorch's convolutions on CUDA in float32. By default they round to ten bits (TF32), and SSIM and
LPIPS subtract nearly equal numbers. It is set for the process, because a gradient is computed after the call returned.
"""

import torch

torch.backends.cudnn.allow_tf32 = False
