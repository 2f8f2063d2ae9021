"""Where the region's image of the training algorithm lies: what the SageMaker SDK knows, and a deployment keeps."""

from __future__ import annotations

from infrastructure.artifacts import DeploymentError

ALGORITHM = "image-classification"


def training_image(region: str) -> str:
    """Return the built-in image-classification algorithm's image URI in a region, from the SageMaker SDK's own tables.

    Raises:
        DeploymentError: the SDK knows none, or is not installed here.
    """
    by_hand = "Or name it: --parameter TrainingImage=<the image's URI>."
    try:
        # Takes seconds, and is asked once in a stack's life.
        from sagemaker.core import image_uris
    except ImportError as error:
        raise DeploymentError(
            f"The SageMaker SDK, which knows {region}'s image of {ALGORITHM}, is not installed here: `make deploy` "
            f"runs where it is. {by_hand}"
        ) from error
    try:
        uri: str = image_uris.retrieve(ALGORITHM, region)
    except (ValueError, KeyError, OSError) as error:
        raise DeploymentError(
            f"The SageMaker SDK knows no image of {ALGORITHM} for {region} ({error}). {by_hand}"
        ) from error
    return uri
