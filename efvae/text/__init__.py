"""Bernoulli autoencoders of documents (semantic hashing) at the size of 20 Newsgroups."""
