"""The ways to help, one file each."""
