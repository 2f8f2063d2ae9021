"""The project's resources: one CloudFormation template and the code that deploys it, on one machine and on AWS."""
