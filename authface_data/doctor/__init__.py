"""What `authface doctor` finds out: the installation, the weights, and the state of a workspace."""
