"""What an installation is made of: the unit, the installer, the broker's files, and what the operator reads."""
