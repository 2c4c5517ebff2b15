"""Data sets: each loader says where its data come from, checks them, and returns plain tensors."""
