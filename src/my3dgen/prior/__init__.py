"""The generator: latent to tri-plane, tri-plane and camera to image."""
