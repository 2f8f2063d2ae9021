"""The embedded platform: everything on one machine with one command, no Docker and no AWS account."""
