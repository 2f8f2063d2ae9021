"""The behaviours of AWS that this project needs and MiniStack lacks, one module for each of its services."""
