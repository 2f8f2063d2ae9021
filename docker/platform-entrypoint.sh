#!/bin/sh
# The secret of the platform, from its file to where each part looks for it: MiniStack for its functions, and the guards.
set -eu
if [ -r /secrets/scones_aws_secret_key ]; then
  AWS_ACCESS_KEY_ID=test
  AWS_SECRET_ACCESS_KEY=$(cat /secrets/scones_aws_secret_key)
  SCONES_VERIFIED_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
  SAGEMAKER_LOCAL_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY SCONES_VERIFIED_SECRET_KEY SAGEMAKER_LOCAL_SECRET_KEY
fi
exec "$@"
