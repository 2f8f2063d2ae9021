"""How many threads the linear algebra may use, said before numpy is loaded (it reads the environment once)."""

import os

MOST_TRAINING_THREADS = 2


def limit_threads(most: int = MOST_TRAINING_THREADS) -> int:
    """Cap BLAS and OpenMP at `most` threads and at the cores there are; a number set by the caller is kept.

    One prediction is too small for threads to help, and a training job must leave room for the rest of the platform.
    """
    threads = max(1, min(most, os.cpu_count() or 1))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    return threads
