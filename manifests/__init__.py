"""The contract between the halves: manifests, workspaces, settings and the views on them."""
