"""How good an image is: PSNR, SSIM, LPIPS, and the loss that training lowers."""
