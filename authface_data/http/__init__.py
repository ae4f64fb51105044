"""HTTP: downloads, allowed hosts, retries."""
