"""Publishing a data set or a model on the Hugging Face hub."""
