"""Training algorithms that `sagemaker_local` runs as containers: one package each, reached by command line alone."""
