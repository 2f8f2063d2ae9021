"""Lambda `record_result`: writes the outcome of one image of a Distributed Map to S3."""
