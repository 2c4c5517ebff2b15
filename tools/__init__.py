"""Builds the notebooks and the book; nothing in efvae imports it."""
