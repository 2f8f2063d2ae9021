"""How many threads the linear algebra may use, said before numpy is loaded (it reads the environment once)."""

import os


def limit_threads() -> None:
    """One BLAS thread: a prediction is too small for more, and training shares its images over threads of its own.

    BLAS threads beside those would wait for each other in loops, at the cost of the rest of the platform.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
