"""Builds the notebooks and the book; nothing in efvae imports it."""

#: One thread, no progress bars, no frozen-module warning: the same digits and outputs on every run.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
