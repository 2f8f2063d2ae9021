#!/bin/sh
# Runs on every machine of the environment before Airflow starts.
export SCONES_STACK_NAME="@STACK_NAME@"
export AIRFLOW_CONN_AWS_DEFAULT="{\"conn_type\": \"aws\", \"extra\": {\"region_name\": \"$AWS_REGION\"}}"
# Where the machines have no internet, put CIFAR-100's archive into the stack's bucket and name it:
# export CIFAR100_ARCHIVE="s3://..."
