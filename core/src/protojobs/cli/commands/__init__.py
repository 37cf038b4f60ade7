"""The commands of `protojobs`, one module each, named as the command."""
