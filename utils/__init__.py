"""What belongs to no room of its own: losses, image metrics, spherical harmonics, seeding, the command-line shell."""
