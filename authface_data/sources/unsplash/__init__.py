"""The Unsplash API and the Unsplash data set."""
