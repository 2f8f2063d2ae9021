"""SageMaker's built-in image-classification, on a CPU: the same contract, a model of our own (docs/algorithm.md)."""
