"""Container entry point: `python -m sagemaker_local.algorithms.image_classification train|serve`."""

import sys


def main(arguments: list[str]) -> int:
    """Run the mode SageMaker names as the container's only argument; the exit code is the job's outcome."""
    if arguments == ["train"]:
        from sagemaker_local.algorithms.image_classification.threads import limit_threads

        limit_threads()
        from sagemaker_local.algorithms.image_classification.train import main as train

        return train()
    if arguments == ["serve"]:
        from sagemaker_local.algorithms.image_classification.threads import limit_threads

        limit_threads(most=1)
        from sagemaker_local.algorithms.image_classification.serve import main as serve

        return serve()
    sys.stderr.write("usage: python -m sagemaker_local.algorithms.image_classification train|serve\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
