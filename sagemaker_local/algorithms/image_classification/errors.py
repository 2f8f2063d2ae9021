"""The one exception a training job or an invocation may fail with on purpose."""


class AlgorithmError(Exception):
    """What the caller handed in cannot be used; the message is one line that names it and says what to do.

    Training writes it to `output/failure` with the prefix `ClientError: `, as the built-in algorithm does.
    """
