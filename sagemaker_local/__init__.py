"""SageMaker on one machine: the same API, jobs that really train, endpoints that really serve.

Run it with `python -m sagemaker_local --port 4580 --data-dir ./data`; `README.md` beside this file is the manual,
`COVERAGE.md` the list of what it answers and what it refuses.
"""
