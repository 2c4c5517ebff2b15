"""Section 3.1's Gaussian VAE: the tight one in closed form, probabilistic PCA, and what lies just outside."""
