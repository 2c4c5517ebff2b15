"""Exponential-family VAEs: the library behind the executable companion of the paper.

Importing it takes torch and numpy only.
"""

__version__ = "0.1.0"
