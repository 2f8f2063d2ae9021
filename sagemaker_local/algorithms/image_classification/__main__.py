"""Container entry point: `python -m sagemaker_local.algorithms.image_classification train|serve`."""

import sys

from sagemaker_local.algorithms.image_classification.threads import limit_threads


def main(arguments: list[str]) -> int:
    """Run the mode SageMaker names as the container's only argument; the exit code is the job's outcome."""
    if arguments in (["train"], ["serve"]):
        limit_threads()
        if arguments == ["train"]:
            from sagemaker_local.algorithms.image_classification.train import main as run
        else:
            from sagemaker_local.algorithms.image_classification.serve import main as run
        return run()
    sys.stderr.write("usage: python -m sagemaker_local.algorithms.image_classification train|serve\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
