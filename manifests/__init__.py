"""The contract between making data and using it: what a row is, where it is kept, why it was kept or dropped."""
