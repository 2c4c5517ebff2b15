"""Timings of whole operations beside the usual way to do them: ``make bench``, or one by ``-m benchmarks.NAME``."""
