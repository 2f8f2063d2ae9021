"""Lambda `classify_image`: asks the SageMaker endpoint what is in the image."""
