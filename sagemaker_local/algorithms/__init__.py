"""Training algorithms that `sagemaker_local` runs as containers: one package each, known to it by command line alone."""
