"""Measures of generated images. A Fréchet distance is called after its features; FID is that of Inception features."""
