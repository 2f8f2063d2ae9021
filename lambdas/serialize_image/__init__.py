"""Lambda `serialize_image`: reads one image from S3 into the workflow."""
