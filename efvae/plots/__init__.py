"""Figures: numbers in, a matplotlib figure out. One module for each topic; the only importers of matplotlib."""
