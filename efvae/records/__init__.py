"""Records: one result of one configuration, with its provenance, in one JSON file.

A file appears whole or not at all, and its name carries a hash of everything that determines the result, so that a
result is found again by its configuration and an edited configuration is noticed.

Own: own-records
"""

from efvae.records.command import main
from efvae.records.origin import device_name, project_root, provenance, results_root
from efvae.records.record import Record, RecordError, cell_name, config_dict, config_hash, make, same
from efvae.records.store import check_folder, find, load, load_like, read, stored, write, write_atomically

__all__ = [
    "Record",
    "RecordError",
    "cell_name",
    "check_folder",
    "config_dict",
    "config_hash",
    "device_name",
    "find",
    "load",
    "load_like",
    "main",
    "make",
    "project_root",
    "provenance",
    "read",
    "results_root",
    "same",
    "stored",
    "write",
    "write_atomically",
]
